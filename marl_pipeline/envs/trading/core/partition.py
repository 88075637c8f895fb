"""Which symbols share an account: a number for every symbol, and the sums and repeats that follow from it.

One account per symbol and one portfolio are two values of that table; there `pool` and `spread` cost nothing beyond a
sum. No sum depends on the order in which a device happens to add.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

Mode = Literal["accounts", "portfolio"]
"""What an account is: one symbol with the whole equity behind it, or a portfolio of several with limits on each."""


@dataclass(frozen=True, eq=False)
class Partition:
    """N symbols in A accounts.

    Attributes:
        account_of: [N] int64, 0..A-1.
        accounts: A.
        kind: "each": symbol n is account n; "one": all are account 0; "segments": anything else.
        members: [A, M] int64 symbols of each account in their order, M those of the largest; the rest is 0.
        present: [A, M] bool, where `members` names a symbol.
        sizes: [A] int64 symbols of each account.
        order: [N] int64 symbols by account, in their order; account `a` has those from `bounds[a]` to `bounds[a + 1]`.
        place: [N] int64 where the symbol stands in `members` flattened.
    """

    account_of: Tensor
    accounts: int
    kind: Literal["each", "one", "segments"]
    members: Tensor
    present: Tensor
    sizes: Tensor
    order: Tensor
    bounds: Tensor
    place: Tensor

    @classmethod
    def of(cls, account_of: ArrayLike | Tensor, size: int, mode: Mode, device: torch.device | str) -> Partition:
        """Checks a table and prepares what is looked up in it.

        Raises:
            ValueError: the table is not [N] whole numbers 0..A-1 that leave no account empty, or `mode` is "accounts"
                and symbols share an account or are not numbered as their accounts.
        """
        table = np.asarray(account_of.cpu() if isinstance(account_of, Tensor) else account_of)
        if table.shape != (size,) or table.dtype.kind not in "iu":
            raise ValueError(
                f"account_of must be [{size}] whole numbers, one per symbol, found {table.dtype} {list(table.shape)}"
            )
        table = table.astype(np.int64)
        accounts = int(table.max()) + 1
        if table.min() < 0 or len(np.unique(table)) != accounts:
            raise ValueError(
                f"account_of must number the accounts 0..A-1 with a symbol in each, found {np.unique(table).tolist()}"
            )
        if mode == "accounts" and not np.array_equal(table, np.arange(size)):
            raise ValueError("account_of must be 0..N-1 in mode accounts: there every symbol has an account of its own")
        sizes = np.bincount(table)
        order = np.argsort(table, kind="stable")
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        column = np.arange(size) - np.repeat(bounds[:-1], sizes)
        members = np.zeros((accounts, int(sizes.max())), dtype=np.int64)
        members[table[order], column] = order
        place = np.empty(size, dtype=np.int64)
        place[order] = table[order] * members.shape[1] + column
        tensors = {
            "account_of": table,
            "members": members,
            "present": np.arange(members.shape[1]) < sizes[:, None],
            "sizes": sizes.astype(np.int64),
            "order": order.astype(np.int64),
            "bounds": bounds.astype(np.int64),
            "place": place,
        }
        kind: Literal["each", "one", "segments"] = "segments"
        if mode == "accounts":
            kind = "each"
        elif accounts == 1:
            kind = "one"
        return cls(
            accounts=accounts,
            kind=kind,
            **{name: torch.from_numpy(table).to(device) for name, table in tensors.items()},
        )

    def pool(self, values: Tensor) -> Tensor:
        """Sums [E, N] over the symbols of each account: [E, A]."""
        if self.kind == "each":
            return values
        if self.kind == "one":
            return values.sum(-1, keepdim=True)
        return self.rows(values).sum(-1)

    def count(self, mask: Tensor) -> Tensor:
        """In how many symbols of each account the [E, N] bool `mask` holds: [E, A] int64."""
        return mask.long() if self.kind == "each" else self.pool(mask)

    def largest(self, values: Tensor) -> Tensor:
        """The largest of [E, N] numbers >= 0 in each account: [E, A]."""
        if self.kind == "each":
            return values
        return values.amax(-1, keepdim=True) if self.kind == "one" else self.rows(values).amax(-1)

    def spread(self, values: Tensor) -> Tensor:
        """What the account of each symbol has: [E, A, ...] to [E, N, ...], or to [E, 1, ...] for one portfolio, which
        broadcasts as that."""
        return values.index_select(1, self.account_of) if self.kind == "segments" else values

    def rows(self, values: Tensor) -> Tensor:
        """[E, N] by account: [E, A, M], 0 beyond the symbols of an account."""
        envs = values.shape[0]
        taken = values.index_select(1, self.members.view(-1)).view(envs, *self.members.shape)
        return taken * self.present if taken.dtype != torch.bool else taken & self.present

    def symbols(self, rows: Tensor) -> Tensor:
        """The inverse of `rows`: [E, A, M] to [E, N]."""
        return rows.flatten(1).index_select(1, self.place)


def partition_of(
    size: int, mode: Mode | None, account_of: ArrayLike | Tensor | None, device: torch.device | str
) -> tuple[Partition, Mode]:
    """The partition of `size` symbols, and what its accounts are.

    Args:
        mode: None takes a table with an account per symbol for "accounts" and any other for portfolios.
        account_of: [N]; None is an account per symbol or one portfolio, as `mode` says.

    Raises:
        ValueError: neither is given, or the table is none (`Partition.of`).
    """
    if account_of is None:
        if mode is None:
            raise ValueError("either mode or account_of must be given: which symbols share an account?")
        account_of = np.arange(size) if mode == "accounts" else np.zeros(size, dtype=np.int64)
    if mode is None:
        mode = "accounts" if int(torch.as_tensor(account_of).max()) + 1 == size else "portfolio"
    return Partition.of(account_of, size, mode, device), mode
