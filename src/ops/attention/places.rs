//! Where heads lie in their buffers.

use cubecl::prelude::*;

/// Stands for minus infinity, which not every target can spell: its exponential is zero beside any score.
pub(super) const NEVER: f32 = -1e30;

/// Heads and their width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sizes {
    pub query: usize,
    pub key_value: usize,
    pub head_dim: usize,
}

impl Sizes {
    /// Query heads that share a key-value head.
    pub fn group(self) -> usize {
        self.query / self.key_value
    }
}

/// Where heads lie in their buffers, in elements.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Places {
    /// Queries of a sequence.
    pub seq: usize,
    /// Positions before the first query.
    pub past: usize,
    /// From one query position to the next.
    pub query_row: usize,
    /// From one sequence's keys (and values) to the next's.
    pub key_batch: usize,
    /// From one position's key to the next.
    pub key_row: usize,
    /// From one key head to the next.
    pub key_head: usize,
    /// The first key head.
    pub first_key: usize,
    /// The first value head.
    pub first_value: usize,
}

/// The sequence and the key-value head a cube works on.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Head {
    batch: usize,
    key_value: usize,
}

#[cube]
pub(super) fn head(#[comptime] sizes: Sizes) -> Head {
    head_of(CUBE_POS_Y as usize, sizes)
}

/// The head that is number `pair` among all of all sequences.
#[cube]
pub(super) fn head_of(pair: usize, #[comptime] sizes: Sizes) -> Head {
    Head { batch: pair / comptime!(sizes.key_value), key_value: pair % comptime!(sizes.key_value) }
}

/// Late tiles see more keys, so they begin first.
#[cube]
pub(super) fn from_the_end(position: u32, count: u32) -> usize {
    (count - position - 1) as usize
}

/// The tile a cube works on, where each is shared by all heads and splits before the next: cubes begin in the order of
/// their numbers, and those that take longest are to begin first. Behind the `first` tiles those come first that take least, since
/// they share a processor with those that take longest.
#[cube]
pub(super) fn tile_in_turn(first: usize) -> usize {
    let turn = CUBE_POS / (CUBE_COUNT_Y * CUBE_COUNT_Z) as usize;
    select(turn < first, turn, CUBE_COUNT_X as usize - 1 + first - turn)
}

/// The same, from the last tile on.
#[cube]
pub(super) fn late_tile_in_turn(first: usize) -> usize {
    CUBE_COUNT_X as usize - 1 - tile_in_turn(first)
}

/// The split of [`tile_in_turn`].
#[cube]
pub(super) fn split_in_turn() -> usize {
    CUBE_POS / CUBE_COUNT_Y as usize % CUBE_COUNT_Z as usize
}

/// The head of [`tile_in_turn`].
#[cube]
pub(super) fn head_in_turn(#[comptime] sizes: Sizes) -> Head {
    head_of(CUBE_POS % CUBE_COUNT_Y as usize, sizes)
}

/// Where row `row` of a head's tile begins in the buffer of queries.
#[cube]
pub(super) fn query_at(head: &Head, row: usize, at: &Places, #[comptime] sizes: Sizes) -> usize {
    let group = comptime!(sizes.group());
    let position = head.batch * at.seq + row / group;
    position * at.query_row + (head.key_value * group + row % group) * comptime!(sizes.head_dim)
}

/// Where row `row` of a head's tile stands among `[batch, seq, query]`.
#[cube]
pub(super) fn row_at(head: &Head, row: usize, at: &Places, #[comptime] sizes: Sizes) -> usize {
    let group = comptime!(sizes.group());
    let position = head.batch * at.seq + row / group;
    position * comptime!(sizes.query) + head.key_value * group + row % group
}

/// Where a key begins.
#[cube]
pub(super) fn key_at(head: &Head, key: usize, at: &Places) -> usize {
    head.batch * at.key_batch + head.key_value * at.key_head + key * at.key_row + at.first_key
}

/// Where a value begins.
#[cube]
pub(super) fn value_at(head: &Head, key: usize, at: &Places) -> usize {
    head.batch * at.key_batch + head.key_value * at.key_head + key * at.key_row + at.first_value
}
