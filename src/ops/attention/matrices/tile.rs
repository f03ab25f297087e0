use super::{COLUMNS, DEPTH, LINE, PLANE, ROWS, WIDE};
use crate::ops::attention::places::Sizes;

/// What one cube works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::ops::attention) struct MatrixTile {
    /// Planes of the cube with rows (or keys) of their own, which stay.
    pub planes: usize,
    /// Left factors of 16 rows that stay with a plane: what passes by is read once for all of them.
    pub lefts: usize,
    /// Keys (or rows) that pass by a plane at a time.
    pub passing: usize,
    /// Planes that have the same rows, other keys passing by each; what they have is put together at the end. Keys that stay
    /// have one plane alone.
    pub shares: usize,
    /// Steps of what passes by that a cube's memory has room for: one that is worked on, and one or two that arrive meanwhile.
    pub slots: usize,
    pub sizes: Sizes,
}

impl MatrixTile {
    /// Rows (or keys) that stay.
    pub fn staying(self) -> usize {
        self.planes * self.rows()
    }

    /// Rows of a plane.
    pub(super) fn rows(self) -> usize {
        self.lefts * ROWS
    }

    pub fn units(self) -> usize {
        self.planes * self.shares * PLANE
    }

    /// Keys that pass by all planes at a time.
    pub(super) fn step(self) -> usize {
        self.passing * self.shares
    }

    /// Rows that units bring at once, a vector each: a multiple of those whose vectors change places.
    pub(super) fn brought_at_once(self) -> usize {
        self.units() / self.vectors() / LINE * LINE
    }

    /// Units that leave what they have to those of the first share.
    pub(super) fn givers(self) -> usize {
        (self.shares - 1) * self.planes * PLANE
    }

    /// Vectors of a row.
    pub(super) fn vectors(self) -> usize {
        self.sizes.head_dim / WIDE
    }

    /// Vectors of a row that change places among each other, so that a vector of eight rows lies in eight places of a line of
    /// 128 bytes: as many as a line has, or fewer where rows are not a multiple of a line.
    pub(super) fn swapped(self) -> usize {
        (1 << self.vectors().trailing_zeros()).min(LINE)
    }

    /// Bytes of a cube's memory for `matrices` whose rows stay, for two whose rows pass by, and for what givers leave.
    pub fn memory(self, matrices: usize) -> usize {
        let rows = matrices * self.staying() + 2 * self.slots * self.step();
        let given = self.lefts * (ROWS * self.sizes.head_dim / PLANE + 4) * self.givers();
        rows * self.vectors() * 16 + 4 * given
    }

    /// Left factors in a row's features.
    pub(super) fn steps(self) -> usize {
        self.sizes.head_dim / DEPTH
    }

    /// Where scores have column block `column` of a unit's row `row`, which is `row / 2` of its left factors.
    pub(super) fn score(self, row: usize, column: usize) -> usize {
        2 * (row / 2 * (self.passing / COLUMNS) + column) + row % 2
    }

    /// Where results have it.
    pub(super) fn result(self, row: usize, column: usize) -> usize {
        2 * (row / 2 * (self.sizes.head_dim / COLUMNS) + column) + row % 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_heads_leave_cards_with_less_memory_one_step_that_arrives() {
        let sizes = Sizes { query: 16, key_value: 4, head_dim: 128 };
        let bytes = |slots| MatrixTile { planes: 2, lefts: 1, passing: 32, shares: 2, slots, sizes }.memory(1);
        assert!(bytes(2) <= 99 * 1024 && 99 * 1024 < bytes(3), "{} and {}", bytes(2), bytes(3));
    }
}
