"""Adapt docstrings to the pages of the reference."""

import re
from collections.abc import Iterator

import griffe


class KerasDocstrings(griffe.Extension):
    """Read the section name of Keras, link public names, and hide annotations."""

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        """Change the docstrings of a loaded package."""
        public = {str(name) for name in pkg.exports or ()} - set(pkg.modules)
        for member in _members(pkg):
            if member.docstring:
                text = _with_sections(member.docstring.value)
                member.docstring.value = _with_links(text, public - {member.name})
            if member.is_function:
                # The descriptions give the types in words: "a number, a schedule or ...".
                member.returns = None
                for parameter in member.parameters:
                    parameter.annotation = None


def _members(parent: griffe.Object) -> Iterator[griffe.Object]:
    for member in parent.members.values():
        if not member.is_alias:
            yield member
            yield from _members(member)


def _with_sections(text: str) -> str:
    """Make `Example:`, as Keras writes it, a section of examples."""
    return re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)


def _with_links(text: str, public: set[str]) -> str:
    """Link public names to their descriptions, except in examples."""
    description, examples, rest = text.partition("Examples:")

    def link(match: re.Match[str]) -> str:
        name = match["name"]
        return f"[{match[0]}][keras_clip.{name}]" if name in public else match[0]

    linked = re.sub(r"`(?:keras_clip\.)?(?P<name>\w+)`", link, description)
    return linked + examples + rest
