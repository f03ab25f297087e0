//! The kernels of [`super::cube`] for devices without matrix units, and for element types these do not take.

#![expect(clippy::too_many_lines, reason = "a kernel is one sweep: its loops share what is in registers")]

mod forward;
mod gradients;

use cubecl::prelude::*;

use super::places::{Head, Places, Sizes, key_at, query_at, row_at, value_at};

pub(super) use forward::attention_forward;
pub(super) use gradients::{attention_delta, attention_key_gradients, attention_query_gradients};

/// Units that share a row of a tile.
const ROW_UNITS: usize = 8;

/// What one cube works on at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    /// Rows: positions of the query heads that share a key-value head.
    pub rows: usize,
    /// Keys.
    pub keys: usize,
    /// Units of the cube; [`ROW_UNITS`] for each of `units / ROW_UNITS` rows or keys.
    pub units: usize,
    pub sizes: Sizes,
}

/// Loads `size` vectors of `head_dim` elements from those of queries, times `scale`; zeros from `end` on.
#[cube]
fn load_rows<F: Float, A: Float>(
    from: &[F],
    to: &mut Shared<[A]>,
    head: &Head,
    first: usize,
    end: usize,
    at: &Places,
    scale: A,
    #[comptime] tile: Tile,
) {
    for i in range_stepped(UNIT_POS as usize, comptime!(tile.rows * tile.sizes.head_dim), comptime!(tile.units)) {
        let (row, d) = (i / comptime!(tile.sizes.head_dim), i % comptime!(tile.sizes.head_dim));
        let mut value = A::new(0.0);
        if first + row < end {
            value = A::cast_from(from[query_at(head, first + row, at, tile.sizes) + d]) * scale;
        }
        to[row * comptime!(tile.sizes.head_dim + 1) + d] = value;
    }
}

/// As [`load_rows`], from a tensor `[batch, seq, query * head_dim]`.
#[cube]
fn load_results<F: Float, A: Float>(
    from: &[F],
    to: &mut Shared<[A]>,
    head: &Head,
    first: usize,
    end: usize,
    at: &Places,
    #[comptime] tile: Tile,
) {
    for i in range_stepped(UNIT_POS as usize, comptime!(tile.rows * tile.sizes.head_dim), comptime!(tile.units)) {
        let (row, d) = (i / comptime!(tile.sizes.head_dim), i % comptime!(tile.sizes.head_dim));
        let mut value = A::new(0.0);
        if first + row < end {
            value = A::cast_from(from[row_at(head, first + row, at, tile.sizes) * comptime!(tile.sizes.head_dim) + d]);
        }
        to[row * comptime!(tile.sizes.head_dim + 1) + d] = value;
    }
}

/// Loads the keys (or values) of a tile; zeros from `end` on.
#[cube]
fn load_keys<F: Float, A: Float>(
    from: &[F],
    to: &mut Shared<[A]>,
    head: &Head,
    first: usize,
    end: usize,
    at: &Places,
    #[comptime] values: bool,
    #[comptime] tile: Tile,
) {
    for i in range_stepped(UNIT_POS as usize, comptime!(tile.keys * tile.sizes.head_dim), comptime!(tile.units)) {
        let (key, d) = (i / comptime!(tile.sizes.head_dim), i % comptime!(tile.sizes.head_dim));
        let mut value = A::new(0.0);
        if first + key < end {
            let start = if comptime!(values) { value_at(head, first + key, at) } else { key_at(head, first + key, at) };
            value = A::cast_from(from[start + d]);
        }
        to[key * comptime!(tile.sizes.head_dim + 1) + d] = value;
    }
}

/// Products of this unit's rows with its keys: row `y + i * rows_apart`, key `x + j * ROW_UNITS`.
#[cube]
fn products<A: Float>(rows: &Shared<[A]>, keys: &Shared<[A]>, #[comptime] tile: Tile) -> Array<A> {
    let (rows_each, keys_each) = comptime!(each(tile));
    let stride = comptime!(tile.sizes.head_dim + 1);
    let (y, x) = (UNIT_POS as usize / ROW_UNITS, UNIT_POS as usize % ROW_UNITS);
    let mut sums = Array::<A>::new(comptime!(rows_each * keys_each));
    #[unroll]
    for i in 0..comptime!(rows_each * keys_each) {
        sums[i] = A::new(0.0);
    }
    for d in 0..comptime!(tile.sizes.head_dim) {
        #[unroll]
        for i in 0..rows_each {
            let a = rows[(y + i * comptime!(tile.units / ROW_UNITS)) * stride + d];
            #[unroll]
            for j in 0..keys_each {
                sums[i * keys_each + j] += a * keys[(x + j * ROW_UNITS) * stride + d];
            }
        }
    }
    sums
}

/// Rows and keys of a tile that fall to each unit.
fn each(tile: Tile) -> (usize, usize) {
    ((tile.rows * ROW_UNITS).div_ceil(tile.units), tile.keys.div_ceil(ROW_UNITS))
}
