//! Rows on their way into a cube's memory while other things are computed.

use cubecl::prelude::*;

use super::{MatrixTile, WIDE, place};
use crate::ops::attention::places::{Head, Places, key_at, query_at, row_at, value_at};
use crate::ops::cube::{bring, own_arrived};

/// Rows of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Queries,
    Results,
    Keys,
    Values,
}

/// Copies `count` rows from `first` on, to those of the cube's memory from `begin` on; zeros from `end` on. They are on their
/// way while other things are computed, until [`arrived`] or [`arrived_but`].
#[cube]
pub(super) fn copy<F: Float, W: Size>(
    from: &[Vector<F, W>],
    to: &mut Shared<[Vector<F, W>]>,
    begin: usize,
    head: &Head,
    first: usize,
    end: usize,
    at: &Places,
    #[comptime] part: Part,
    #[comptime] count: usize,
    #[comptime] tile: MatrixTile,
) {
    let (vectors, at_once) = comptime!((tile.vectors(), tile.brought_at_once()));
    let (row, d) = (UNIT_POS_X as usize / vectors, UNIT_POS_X as usize % vectors);
    let left = end - min(first, end);
    let start = begin * vectors + place(row, d, tile);
    let places = &mut to[start..start + comptime!(count * vectors)];
    #[unroll]
    for i in 0..comptime!(count.div_ceil(at_once)) {
        let mine = row + comptime!(i * at_once);
        if row < at_once && mine < count {
            let source = if comptime!(part == Part::Queries) {
                query_at(head, first + mine, at, tile.sizes) / WIDE
            } else if comptime!(part == Part::Results) {
                row_at(head, first + mine, at, tile.sizes) * vectors
            } else {
                // What differs between units need be computed once.
                let own = if comptime!(part == Part::Keys) { key_at(head, row, at) } else { value_at(head, row, at) };
                own / WIDE + (first + comptime!(i * at_once)) * (at.key_row / WIDE)
            };
            let source = source + d;
            let bytes = select(mine < left, 16u32, 0u32);
            let behind = comptime!(i * at_once * vectors);
            bring::<F, W>(&from[source..source + 1], &mut places[behind..behind + 1], bytes);
        }
    }
}

/// Waits for what all units of the cube have begun to copy, and for all units.
#[cube]
pub(super) fn arrived() {
    arrived_but(0usize);
}

/// What a unit has begun to copy since the last time becomes a group.
#[cube]
pub(super) fn close_group() {
    gpu_asm!("cp.async.commit_group;");
}

/// As [`arrived`], but for the `newest` groups, two at most.
#[cube]
pub(super) fn arrived_but(#[comptime] newest: usize) {
    match comptime!(newest) {
        0 => own_arrived(),
        1 => gpu_asm!("cp.async.wait_group 1;"),
        _ => gpu_asm!("cp.async.wait_group 2;"),
    }
    sync_cube();
}
