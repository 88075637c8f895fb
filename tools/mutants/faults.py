"""Where faults can be planted in a file, and what each looks like: other operators, constants, branches, functions."""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "marl_pipeline"
MODULES = ("algos", "agents", "evaluation", "envs/trading", "data/panel.py")
"""Files and folders of the package in which faults are planted."""

COMPARED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
            ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}  # fmt: skip
JOINED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
          ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}  # fmt: skip
NAMED = {"minimum": "maximum", "maximum": "minimum", "amin": "amax", "amax": "amin", "min": "max", "max": "min",
         "argmax": "argmin", "argmin": "argmax", "any": "all", "all": "any", "mean": "sum", "sum": "mean",
         "fmin": "fmax", "fmax": "fmin", "zeros": "ones", "ones": "zeros", "zeros_like": "ones_like",
         "ones_like": "zeros_like", "floor": "ceil", "ceil": "floor"}  # fmt: skip
"""Functions and methods that are easily taken one for the other."""


@dataclass(frozen=True)
class Mutant:
    """One fault: the bytes from `start` to `stop` of a file become `after`.

    Attributes:
        path: of the file, relative to the package.
        function: `f` or `Class.method` at the top of the module that contains the fault; empty outside of functions.
        statement: the source of the smallest statement around it, on one line.
    """

    path: str
    function: str
    line: int
    start: int
    stop: int
    before: str
    after: str
    statement: str

    @property
    def change(self) -> str:
        return f"{one_line(self.before)} -> {one_line(self.after)}"

    @property
    def key(self) -> str:
        """What explanations are matched by: source text, and no line number."""
        return f"{self.path}: {self.function or '(module)'}: {self.statement}: {self.change}"

    @property
    def label(self) -> str:
        """Tells apart the faults of one version of a file."""
        return f"{self.path} {self.start} {self.stop} {self.after}"

    def source(self) -> str:
        """The file with the fault in it."""
        raw = (PACKAGE / self.path).read_bytes()
        return (raw[: self.start] + self.after.encode() + raw[self.stop :]).decode()


def one_line(text: str) -> str:
    return " ".join(text.split())


class Faults(ast.NodeVisitor):
    """Collects (place, what takes its place) over a file.

    Annotations, decorators, docstrings, messages of errors and what checks the programmer (`assert`) are left alone.
    """

    def __init__(self) -> None:
        self.found: list[tuple[ast.AST, ast.AST, str, ast.stmt]] = []
        self._names: list[str] = []
        self._in_function = False
        self._statement: ast.stmt | None = None

    def visit(self, node: ast.AST) -> None:
        outer = self._statement
        if isinstance(node, ast.stmt):
            self._statement = node
        super().visit(node)
        self._statement = outer

    def add(self, node: ast.AST, changed: ast.AST) -> None:
        assert self._statement is not None
        self.found.append((node, changed, ".".join(self._names) if self._in_function else "", self._statement))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outermost, self._in_function = not self._in_function, True
        if outermost:
            self._names.append(node.name)
        for part in [*node.args.defaults, *node.args.kw_defaults, *node.body]:
            if part is not None:
                self.visit(part)
        if outermost:
            self._names.pop()
            self._in_function = False

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if not self._in_function:
            self._names.append(node.name)
        for statement in node.body:
            self.visit(statement)
        if not self._in_function:
            self._names.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if type(node.op) in JOINED:
            changed = copy.deepcopy(node)
            changed.op = JOINED[type(node.op)]()
            self.add(node, changed)
        self.visit(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call) and self._in_function:
            self.add(node, ast.Pass())
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp):
            self.add(node.test, ast.UnaryOp(ast.Not(), copy.deepcopy(node.test)))
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        return

    def visit_Assert(self, node: ast.Assert) -> None:
        return

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        return

    def visit_Compare(self, node: ast.Compare) -> None:
        for index, operator in enumerate(node.ops):
            changed = copy.deepcopy(node)
            changed.ops[index] = COMPARED[type(operator)]()
            self.add(node, changed)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in JOINED:
            changed = copy.deepcopy(node)
            changed.op = JOINED[type(node.op)]()
            self.add(node, changed)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        changed = copy.deepcopy(node)
        changed.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self.add(node, changed)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        self.add(node, copy.deepcopy(node.operand))
        if not isinstance(node.operand, ast.Constant):
            self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.add(node, ast.IfExp(node.test, node.orelse, node.body))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.add(node, ast.Constant(not value))
        elif isinstance(value, int | float):
            self.add(node, ast.Constant(value * 2 if isinstance(value, float) and value else value + 1))

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        if name in NAMED:
            changed = copy.deepcopy(node)
            if isinstance(changed.func, ast.Attribute):
                changed.func.attr = NAMED[name]
            elif isinstance(changed.func, ast.Name):
                changed.func.id = NAMED[name]
            self.add(node, changed)
        if name == "where" and len(node.args) == 3:
            self.add(node, ast.Call(node.func, [node.args[0], node.args[2], node.args[1]], node.keywords))
        self.generic_visit(node)


def mutants_of(path: Path) -> list[Mutant]:
    """Every fault of a file, in the order of the file."""
    raw = path.read_bytes()
    lines = [0]
    for line in raw.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def place(node: ast.expr | ast.stmt) -> tuple[int, int]:
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
        return lines[node.lineno - 1] + node.col_offset, lines[end_line - 1] + end_column

    faults = Faults()
    faults.visit(ast.parse(raw))
    found = []
    for node, changed, function, statement in faults.found:
        assert isinstance(node, ast.expr | ast.stmt)
        start, stop = place(node)
        first, last = place(statement)
        after = ast.unparse(ast.fix_missing_locations(changed))
        heading = raw[first:last].decode().partition(":\n")[0]  # of a compound statement
        found.append(
            Mutant(
                path=str(path.relative_to(PACKAGE)),
                function=function,
                line=node.lineno,
                start=start,
                stop=stop,
                before=raw[start:stop].decode(),
                after=after if isinstance(changed, ast.stmt) else f"({after})",
                statement=one_line(heading),
            )
        )
    return sorted(found, key=lambda mutant: (mutant.start, mutant.stop, mutant.after))


def files(only: Sequence[str]) -> Iterator[Path]:
    """The modules in which faults are planted, or those of them that are asked for.

    Raises:
        SystemExit: one does not exist.
    """
    for name in only or MODULES:
        path = PACKAGE / name
        if not path.exists():
            raise SystemExit(f"--only: marl_pipeline/{name} does not exist")
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def sampled(every: Mapping[Path, Sequence[Mutant]], count: int, seed: int) -> list[Mutant]:
    """About `count` faults: of each module by the square root of how many it has, and one at least."""
    total = sum(len(found) ** 0.5 for found in every.values())
    drawn: list[Mutant] = []
    for path, found in every.items():
        take = min(len(found), max(1, round(count * len(found) ** 0.5 / max(total, 1.0))))
        chosen = random.Random(f"{seed}/{path.relative_to(PACKAGE)}").sample(list(found), take)
        drawn += sorted(chosen, key=lambda mutant: mutant.start)
    return drawn
