"""Changes: the small faults that can be put into a module's source, one at a time.

An operator, a constant (a negative one loses its sign), a condition, a statement left out.  What decides nothing at
run time is left alone: docstrings, annotations, type aliases, ``__all__``, what only a type checker reads
(``TYPE_CHECKING``, ``cast``, ``TypeVar``), the flags of ``@dataclass``, ``@njit`` and other decorators that change
neither values nor texts, and ``strict=`` of ``zip``, which watches over callers.  The texts of errors are not among
these: users read them.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import Any

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Mod: ast.Mult,
}  # fmt: skip

_FLAGGED = {"dataclass", "njit", "overload", "intrinsic", "lru_cache"}
_TYPED = {"cast", "TypeVar", "NewType"}


def places(tree: ast.AST) -> list[tuple[int, int]]:
    """Return what can be changed, as (number of the node in walking order, number of the change)."""
    skipped = {id(inner) for node in ast.walk(tree) for part in _silent(node) for inner in ast.walk(part)}
    nodes = ((at, node) for at, node in enumerate(ast.walk(tree)) if id(node) not in skipped)
    return [(at, n) for at, node in nodes for n, _ in enumerate(_changes(node))]


def changed(tree: ast.Module, at: int, n: int) -> tuple[ast.Module, str]:
    """Return the tree with one change, and that change in words."""
    made = copy.deepcopy(tree)
    node = list(ast.walk(made))[at]
    before = ast.unparse(node).splitlines()[0]
    name, value = _changes(node)[n]
    if name:
        setattr(node, name, value)
        after = ast.unparse(node).splitlines()[0]
    else:
        _replace(made, node, value)
        after = ast.unparse(value)
    line = getattr(node, "lineno", 0)
    return ast.fix_missing_locations(made), f"line {line}: {before[:70]}  ->  {after[:70]}"


def lines(tree: ast.Module, at: int) -> range:
    """Return the lines of the innermost statement that holds a node; of one with a body, those of its head."""
    node = list(ast.walk(tree))[at]
    holders = [one for one in ast.walk(tree) if isinstance(one, ast.stmt) and any(i is node for i in ast.walk(one))]
    inner = holders[-1]
    body = getattr(inner, "body", None)
    return range(inner.lineno, body[0].lineno if body else (inner.end_lineno or inner.lineno) + 1)


def _changes(node: ast.AST) -> list[tuple[str, Any]]:
    """Return what may be changed of a node, as (field, new value); no field is the node itself."""
    match node:
        case ast.Compare(ops=[op, *rest]) if type(op) in _COMPARED:
            return [("ops", [_COMPARED[type(op)](), *rest])]
        case ast.BoolOp(op=op):
            return [("op", ast.Or() if isinstance(op, ast.And) else ast.And())]
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _COMPUTED:
            return [("op", _COMPUTED[type(op)]())]
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            return [("test", ast.UnaryOp(ast.Not(), test))]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
            return [("op", ast.UAdd())]
        case ast.Constant(value=bool() as value):
            return [("value", not value)]
        case ast.Constant(value=int() | float() as value):
            return [("value", value + 1)]
        case ast.Constant(value=str() | bytes() as value) if value:
            return [("value", value + value[:1])]
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            return [("value", ast.Constant(None))]
        case ast.Break():
            return [("", ast.Continue())]
        case ast.Continue():
            return [("", ast.Break())]
        case ast.Expr(value=ast.Call()) | ast.Raise():
            return [("", ast.Pass())]
    return []


def _silent(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a node that decide nothing at run time."""
    for name in ("annotation", "returns"):
        if isinstance(part := getattr(node, name, None), ast.AST):
            yield part
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as number):
            yield number
        case ast.Expr(value=ast.Constant()):
            yield node
        case ast.If(test=ast.Name("TYPE_CHECKING")):
            yield node
        case ast.Assign(targets=[ast.Name("__all__")]):
            yield node
        case ast.Assign(value=ast.Subscript(value=ast.Name("Literal"))):
            yield node
        case ast.FunctionDef() | ast.ClassDef():
            yield from (one for one in node.decorator_list if _name(one) in _FLAGGED)
        case ast.Call(func=ast.Name("zip"), keywords=keywords):
            yield from (one for one in keywords if one.arg == "strict")
        case ast.Call() if _name(node) in _TYPED:
            yield from (node.args[:1])


def _name(node: ast.expr) -> str:
    inner = node.func if isinstance(node, ast.Call) else node
    return inner.attr if isinstance(inner, ast.Attribute) else inner.id if isinstance(inner, ast.Name) else ""


def _replace(tree: ast.Module, old: ast.AST, new: Any) -> None:
    for parent in ast.walk(tree):
        for _, value in ast.iter_fields(parent):
            if isinstance(value, list) and any(one is old for one in value):
                value[:] = [ast.copy_location(new, old) if one is old else one for one in value]
