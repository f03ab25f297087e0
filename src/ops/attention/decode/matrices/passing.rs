//! Keys and values that pass by a plane.

use cubecl::prelude::*;

use super::super::DecodeTile;
use super::{KEYS, places};

/// 16 keys and their values as a plane's units ask for them.
#[derive(CubeType)]
pub(in super::super) struct Passing<F: Float, N: Size> {
    /// Of rows `g` and `g + 8`, alternating.
    pub(super) keys: Array<Vector<F, N>>,
    /// Of rows `2 t`, `2 t + 1`, `2 t + 8` and `2 t + 9`, one after the other.
    pub(super) values: Array<Vector<F, N>>,
}

/// The first of the keys that pass by this plane.
#[cube]
pub(super) fn first_key(#[comptime] tile: DecodeTile) -> usize {
    CUBE_POS_X as usize * comptime!(tile.split_keys) + UNIT_POS as usize / 32 * KEYS
}

/// Asks for a plane's first keys and values, of `stored` ones.
#[cube]
pub(in super::super) fn first_passing<F: Float, N: Size>(
    keys: &[Vector<F, N>],
    values: &[Vector<F, N>],
    stored: usize,
    capacity: usize,
    #[comptime] tile: DecodeTile,
) -> Passing<F, N> {
    let mut passing = Passing::<F, N> {
        keys: Array::new(comptime!(2 * tile.of_key())),
        values: Array::new(comptime!(4 * tile.of_value())),
    };
    let first = first_key(tile);
    ask_keys::<F, N>(keys, &mut passing, first, stored, capacity, tile);
    ask_values::<F, N>(values, &mut passing, first, stored, capacity, tile);
    passing
}

#[cube]
pub(super) fn ask_keys<F: Float, N: Size>(
    keys: &[Vector<F, N>],
    to: &mut Passing<F, N>,
    first: usize,
    stored: usize,
    capacity: usize,
    #[comptime] tile: DecodeTile,
) {
    let (g, t) = places();
    #[unroll]
    for half in 0..2usize {
        let key = first + 8 * half + g;
        let at = (CUBE_POS_Y as usize * capacity + key) * comptime!(tile.vectors()) + t;
        #[unroll]
        for s in 0..comptime!(tile.of_key()) {
            let mut vector = Vector::<F, N>::new(F::new(0.0));
            if key < stored {
                vector = keys[at + 4 * s];
            }
            to.keys[2 * s + half] = vector;
        }
    }
}

#[cube]
pub(super) fn ask_values<F: Float, N: Size>(
    values: &[Vector<F, N>],
    to: &mut Passing<F, N>,
    first: usize,
    stored: usize,
    capacity: usize,
    #[comptime] tile: DecodeTile,
) {
    let (g, _) = places();
    #[unroll]
    for which in 0..4usize {
        let key = first + value_row(which);
        let at = (CUBE_POS_Y as usize * capacity + key) * comptime!(tile.vectors()) + g;
        #[unroll]
        for i in 0..comptime!(tile.of_value()) {
            let mut vector = Vector::<F, N>::new(F::new(0.0));
            if key < stored {
                vector = values[at + 8 * i];
            }
            to.values[comptime!(which * tile.of_value()) + i] = vector;
        }
    }
}

/// The row of value `which` of a unit.
#[cube]
fn value_row(#[comptime] which: usize) -> usize {
    let (_, t) = places();
    2 * t + comptime!(which % 2 + which / 2 * 8)
}

/// The new key and value, where they are `at` of those that pass by.
#[cube]
pub(super) fn put_among<F: Float, N: Size>(
    new: &Shared<[Vector<F, N>]>,
    passing: &mut Passing<F, N>,
    at: usize,
    #[comptime] tile: DecodeTile,
) {
    let (g, t) = places();
    #[unroll]
    for half in 0..2usize {
        if at == 8 * half + g {
            #[unroll]
            for s in 0..comptime!(tile.of_key()) {
                passing.keys[2 * s + half] = new[4 * s + t];
            }
        }
    }
    #[unroll]
    for which in 0..4usize {
        if at == value_row(which) {
            #[unroll]
            for i in 0..comptime!(tile.of_value()) {
                passing.values[comptime!(which * tile.of_value()) + i] = new[comptime!(tile.vectors()) + 8 * i + g];
            }
        }
    }
}
