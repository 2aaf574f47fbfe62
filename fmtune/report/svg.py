"""SVG: what matplotlib writes, made small, deterministic and recolourable.

The page's Content-Security-Policy allows no ``style`` attribute, so matplotlib's styles become presentation
attributes, and every colour of the palette a class (``f-c1`` fills, ``s-c1`` strokes) that the page's style
sheet colours for light, dark and print.  Numbers keep one decimal, empty groups go, ids are short and unique
to a chart.  A group whose gid is ``dots:5`` becomes one path of round points 5 wide; the texts of ``tips`` become
titles, one to a marker in order, which browsers show as tooltips.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_SPACES = re.compile(r"\s*\n?([MLCQZz])\s*")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_DROPPED = {"font-family", "font-style", "font-weight", "stroke-linejoin", "stroke-miterlimit"}
_DEFAULTS = {("stroke-linecap", "butt"), ("stroke-width", "1"), ("text-anchor", "start"), ("opacity", "1")}


def clean(
    source: str,
    *,
    prefix: str,
    palette: Mapping[str, str],
    label: str,
    tips: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Return the SVG element to put into the page.

    Parameters
    ----------
    source : str
        What matplotlib's SVG backend wrote, with ``svg.fonttype: none``.
    prefix : str
        Begins every id, so that several charts share one page.
    palette : mapping
        Lower-case ``#rrggbb`` to the name of its class.
    label : str
        The chart in one sentence, for those who do not see it.
    tips : mapping, optional
        gid of a group of markers to one text each.
    """
    root = ElementTree.fromstring(source)
    _drop(root)
    for element in root.iter():
        _restyle(element, palette)
    for group in root.iter(f"{_SVG}g"):
        gid = group.get("id", "")
        if gid.startswith("dots"):
            _merge(group)
        elif tips and gid in tips:
            _title(group, tips[gid])
        elif gid.startswith(("xtick", "ytick")):
            for element in group.iter():
                element.attrib.pop("clip-path", None)
        _hoist(group)
    _rename(root, prefix)
    _flatten(root)
    return _written(root, label)


def _drop(root: ElementTree.Element) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
        parent.text = parent.text if parent.text and parent.text.strip() else None
        parent.tail = None


def _restyle(element: ElementTree.Element, palette: Mapping[str, str]) -> None:
    classes: list[str] = []
    for declaration in (element.attrib.pop("style", "") or "").split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if not name or name in _DROPPED or (name, value) in _DEFAULTS:
            continue
        if name in ("fill", "stroke") and value in palette:
            classes.append(f"{name[0]}-{palette[value]}")
        else:
            element.set(name, _rounded(value.removesuffix("px")))
    if classes:
        element.set("class", " ".join(classes))
    for name in ("d", "x", "y", "width", "height", "transform"):
        if name in element.attrib:
            element.set(name, _rounded(element.attrib[name]))
    if "d" in element.attrib:
        element.set("d", _relative(element.attrib["d"]))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]


def _relative(path: str) -> str:
    """Return the path with relative steps, which are short; each starts from the rounded place, so none adds up."""
    tokens = path.split()
    if not set(tokens) & {"L"} or set(tokens) & {"C", "Q"}:
        return _SPACES.sub(r"\1", path).strip()
    written: list[str] = []
    at = (0, 0)
    for place, token in enumerate(tokens):
        if token in ("M", "L"):
            to = (round(10 * float(tokens[place + 1])), round(10 * float(tokens[place + 2])))
            steps = (to[0] - at[0], to[1] - at[1]) if token == "L" else to
            parts = [_one(step / 10) for step in steps]
            written.append(f"{'l' if token == 'L' else 'M'}{parts[0]}{'' if parts[1][0] == '-' else ' '}{parts[1]}")
            at = to
        elif token == "z":
            written.append("z")
    return "".join(written)


def _rounded(text: str) -> str:
    return _NUMBER.sub(lambda m: _one(float(m.group())), text)


def _one(value: float) -> str:
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else re.sub(r"^(-?)0\.", r"\1.", text)


def _merge(group: ElementTree.Element) -> None:
    """Make one path of many round markers: a line of no length with round ends is a dot."""
    uses = list(group.iter(f"{_SVG}use"))
    if not uses:
        return
    points = "".join(f"M{u.get('x', '0')} {u.get('y', '0')}h0" for u in uses)
    colour = next((c for c in (uses[0].get("class") or "").split() if c.startswith("f-")), "f-ink")
    kept = {k: v for k, v in uses[0].attrib.items() if k in ("opacity", "fill-opacity")}
    for child in list(group):
        group.remove(child)
    size = group.get("id", "").rpartition(":")[2] or "4"
    path = ElementTree.SubElement(group, f"{_SVG}path", {"d": points, "class": f"s-{colour[2:]}"})
    path.attrib |= {"fill": "none", "stroke-width": size, "stroke-linecap": "round"}
    if kept:
        path.set("stroke-opacity", next(iter(kept.values())))


def _title(group: ElementTree.Element, texts: Sequence[str]) -> None:
    uses = list(group.iter(f"{_SVG}use"))
    if len(uses) != len(texts):  # a marker outside the axes was left out: no title is better than a wrong one
        return
    for use, text in zip(uses, texts, strict=True):
        ElementTree.SubElement(use, f"{_SVG}title").text = text


def _hoist(group: ElementTree.Element) -> None:
    """Say once, on the group, what all its markers say."""
    uses = [child for child in group if child.tag == f"{_SVG}use"]
    if len(uses) < 2 or len(uses) != len(group):
        return
    for name in ("class", "stroke-width", "fill-opacity", "stroke-opacity"):
        values = {use.get(name) for use in uses}
        value = values.pop()
        if value is not None and not values and name not in group.attrib:
            group.set(name, value)
            for use in uses:
                del use.attrib[name]


def _rename(root: ElementTree.Element, prefix: str) -> None:
    used = {e.get(_HREF, "")[1:] for e in root.iter()}
    used |= {m for e in root.iter() for v in e.attrib.values() for m in _REFERENCE.findall(v)}
    names: dict[str, str] = {}
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old in used and old is not None:
            names.setdefault(old, f"{prefix}{len(names)}")
            element.set("id", names[old])
    for element in root.iter():
        if _HREF in element.attrib:
            element.set("href", f"#{names[element.attrib.pop(_HREF)[1:]]}")
        clip = element.get("clip-path")
        if clip:
            element.set("clip-path", _REFERENCE.sub(lambda m: f"url(#{names[m[1]]})", clip))


def _flatten(element: ElementTree.Element) -> None:
    """Take empty groups out, and put the children of a group without attributes in its place."""
    for child in list(element):
        _flatten(child)
        if child.tag in (f"{_SVG}g", f"{_SVG}defs") and len(child) == 0:
            element.remove(child)
        elif child.tag == f"{_SVG}g" and not child.attrib:
            place = list(element).index(child)
            element.remove(child)
            for offset, grandchild in enumerate(list(child)):
                element.insert(place + offset, grandchild)


def _written(root: ElementTree.Element, label: str) -> str:
    for name in ("version", "width", "height"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": label}
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)
