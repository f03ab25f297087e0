//! Decode on matrix units, for up to 8 query heads that share a long cache: where a key's product with each of several queries is
//! computed by plain units, computing takes longer than reading.
//!
//! Keys are the rows of a left factor and queries the columns of a right one, so that a plane has 16 keys at a time for all
//! heads: `S^T = K Q^T`, then `O^T = V^T P^T`. A unit's vectors of keys and of queries are its elements of two products, of
//! values its elements of eight: which features come first does not matter to a sum, and columns of a result may lie anywhere. Keys
//! and values are asked for before the queries are there.

mod passing;
mod query;

use std::f32::consts::LOG2_E;

use cubecl::cmma::MmaDefinition;
use cubecl::prelude::*;

use super::DecodeTile;
use super::end::leave;
use crate::ops::attention::matrices::{exp2, exp2_of};
use crate::ops::attention::places::NEVER;
use crate::ops::cube::{add_product, add_products, zero_sums};

pub(super) use passing::first_passing;
use passing::{Passing, ask_keys, ask_values, first_key, put_among};
pub(super) use query::{put_new, query_as_it_is, query_turned};

/// Rows of a left factor: keys that a plane has at a time.
const KEYS: usize = 16;

/// Columns of a right factor: most query heads.
const HEADS: usize = 8;

/// Columns of a left factor, rows of a right one.
const DEPTH: usize = 16;

/// Features of the vectors that four units have of a key, and eight units of a value.
const KEY_STEP: usize = 32;
const VALUE_STEP: usize = 64;

/// Most features of a head: each vector of a new key and value has a unit of its own.
const MOST_FEATURES: usize = 512;

/// From one row of eight sums by eight heads to the next in the cube's memory: two more than there are, for its banks.
const SUMS_STRIDE: usize = 8 * HEADS + 2;

/// Elements of a vector, and of a register.
const WIDE: usize = 8;
type Pair = Const<2>;

/// Whether the kernel takes `group` query heads of `head_dim` features for each key-value head.
pub(in crate::ops::attention) fn fits_matrices(group: usize, head_dim: usize) -> bool {
    group <= HEADS && head_dim.is_multiple_of(VALUE_STEP) && head_dim <= MOST_FEATURES
}

impl DecodeTile {
    /// Vectors that a unit has of a key.
    fn of_key(self) -> usize {
        self.head_dim / KEY_STEP
    }

    /// Vectors that a unit has of a value.
    fn of_value(self) -> usize {
        self.head_dim / VALUE_STEP
    }

    /// Elements of a cube's memory that a plane's sums take.
    pub(super) fn of_plane(self) -> usize {
        2 * self.value_factors() * SUMS_STRIDE
    }

    /// Left factors that values become, each of up to two steps.
    fn value_factors(self) -> usize {
        8 * self.of_value().div_ceil(2)
    }
}

/// A unit's `g` and `t` among its plane's eight by four, as [`crate::ops::attention::matrices`] names them.
#[cube]
fn places() -> (usize, usize) {
    let lane = UNIT_POS as usize % 32;
    (lane / 4, lane % 4)
}

/// As [`super::decode`], the first keys and values being `passing`, and what is not stored yet `new`.
#[cube]
pub(super) fn decode_on_matrices<F: Float, A: Float, N: Size>(
    query: &Array<Vector<F, N>>,
    new: &Shared<[Vector<F, N>]>,
    passing: &mut Passing<F, N>,
    keys: &[Vector<F, N>],
    values: &[Vector<F, N>],
    partial: &mut [A],
    out: &mut [F],
    stored: usize,
    capacity: usize,
    scale: A,
    #[comptime] tile: DecodeTile,
) {
    let (g, t) = places();
    let (planes, group) = comptime!((tile.parts(), tile.group));
    let start = CUBE_POS_X as usize * comptime!(tile.split_keys);
    let end = min(start + comptime!(tile.split_keys), stored + comptime!(usize::from(tile.appends)));
    // Of a power of two instead of e.
    let scale = f32::cast_from(scale) * LOG2_E;
    let product = MmaDefinition::<F, F, f32>::new(KEYS, HEADS, DEPTH);
    let factors = comptime!(tile.value_factors());
    // Of heads 2 t and 2 t + 1.
    let mut largest = Vector::<f32, Pair>::new(NEVER);
    let mut total = Vector::<f32, Pair>::new(0.0);
    let mut sums = Array::<Vector<f32, Pair>>::new(comptime!(2 * factors));
    #[unroll]
    for i in 0..comptime!(2 * factors) {
        sums[i] = Vector::new(0.0);
    }
    for first in range_stepped(first_key(tile), end, comptime!(planes * KEYS)) {
        if comptime!(tile.appends) {
            put_among::<F, N>(new, passing, stored - first, tile);
        }
        let mut products = zero_sums::<Pair>();
        #[unroll]
        for s in 0..comptime!(tile.of_key()) {
            let (low, high) = (passing.keys[2 * s], passing.keys[2 * s + 1]);
            add_products::<F, N, Pair>(product, low, high, query[s], &mut products);
        }
        let next = first + comptime!(planes * KEYS);
        ask_keys::<F, N>(keys, passing, next, min(end, stored), capacity, tile);

        let mut found = largest;
        let mut scores = Array::<Vector<f32, Pair>>::new(2usize);
        #[unroll]
        for half in 0..2usize {
            let mut score = (products[half] + products[2 + half]) * Vector::new(scale);
            // Such a key weighs nothing beside any other; its value is zero.
            if first + 8 * half + g >= end {
                score = Vector::new(NEVER);
            }
            scores[half] = score;
            found = max(found, score);
        }
        let found = over_keys(found, true);
        let mut b = Array::<Vector<F, Pair>>::new(2usize);
        let factor = exp2(largest - found);
        largest = found;
        total *= factor;
        #[unroll]
        for half in 0..2usize {
            let weight = exp2(scores[half] - found);
            total += weight;
            b[half] = transposed::<F>(Vector::cast_from(weight));
        }
        #[unroll]
        for i in 0..comptime!(2 * factors) {
            sums[i] *= factor;
        }
        #[unroll]
        for i in 0..factors {
            let (step, element) = comptime!((2 * (i / 8), i % 8));
            let mut a = Array::<Vector<F, Pair>>::new(4usize);
            #[unroll]
            for pair in 0..2usize {
                #[unroll]
                for half in 0..2usize {
                    let mut two = Vector::<F, Pair>::new(F::new(0.0));
                    if comptime!(step + half < tile.of_value()) {
                        #[unroll]
                        for e in 0..2usize {
                            let which = comptime!((2 * pair + e) * tile.of_value() + step + half);
                            two.insert(e, passing.values[which].extract(element));
                        }
                    }
                    a[2 * pair + half] = two;
                }
            }
            add_product::<F, Pair>(product, &a, &b, &mut sums, comptime!(2 * i));
        }
        ask_values::<F, N>(values, passing, next, min(end, stored), capacity, tile);
    }

    // All planes take the cube's largest score for theirs, so that what they have can be added up.
    let plane = UNIT_POS as usize / 32;
    let total = over_keys(total, false);
    let mut in_parts = Shared::<[A]>::new_slice(comptime!(group * planes));
    let mut totals = Shared::<[A]>::new_slice(comptime!(group * planes));
    let mut gathered = Shared::<[A]>::new_slice(comptime!(planes * tile.of_plane()));
    #[unroll]
    for e in 0..2usize {
        if g == 0 && 2 * t + e < group {
            in_parts[(2 * t + e) * planes + plane] = A::cast_from(largest.extract(e));
        }
    }
    sync_cube();
    #[unroll]
    for e in 0..2usize {
        let head = 2 * t + e;
        if head < group {
            let mut most = in_parts[head * planes];
            for other in 1..planes {
                most = max(most, in_parts[head * planes + other]);
            }
            let factor = exp2_of(largest.extract(e) - f32::cast_from(most));
            if g == 0 {
                totals[head * planes + plane] = A::cast_from(total.extract(e) * factor);
            }
            #[unroll]
            for i in 0..factors {
                #[unroll]
                for half in 0..2usize {
                    if comptime!(2 * (i / 8) + half < tile.of_value()) {
                        let to = sum_at(plane, comptime!(2 * i + half), g, head, tile);
                        gathered[to] = A::cast_from(sums[2 * i + half].extract(e) * factor);
                    }
                }
            }
        }
    }
    sync_cube();
    leave::<F, A>(&gathered, &totals, &in_parts, partial, out, tile);
}

/// Where a plane leaves a sum: of a product's rows from `half` 8 of factor `i` on, `2 i + half`, row `g`, for a head.
#[cube]
fn sum_at(plane: usize, rows: usize, g: usize, head: usize, #[comptime] tile: DecodeTile) -> usize {
    plane * comptime!(tile.of_plane()) + rows * SUMS_STRIDE + g * HEADS + head
}

/// Where a plane leaves the sum of a head's feature.
#[cube]
pub(super) fn feature_at(plane: usize, head: usize, feature: usize, #[comptime] tile: DecodeTile) -> usize {
    let (step, in_step) = (feature / VALUE_STEP, feature % VALUE_STEP);
    let factor = step / 2 * 8 + in_step % 8;
    sum_at(plane, 2 * factor + step % 2, in_step / 8, head, tile)
}

/// The largest over the units whose keys differ, or their sum.
#[cube]
fn over_keys(value: Vector<f32, Pair>, #[comptime] largest: bool) -> Vector<f32, Pair> {
    let mut all = value;
    #[unroll]
    for i in 2..5u32 {
        let mut other = all;
        #[unroll]
        for e in 0..2usize {
            other.insert(e, plane_shuffle_xor(all.extract(e), comptime!(1 << i)));
        }
        if comptime!(largest) {
            all = max(all, other);
        } else {
            all += other;
        }
    }
    all
}

/// Eight by eight elements, of which each unit has two of row `g` from column `2 t` on, transposed (CUDA's PTX ISA, `movmatrix`).
#[cube]
fn transposed<F: Float>(pair: Vector<F, Pair>) -> Vector<F, Pair> {
    let whole: u32;
    gpu_asm!(
        "movmatrix.sync.aligned.m8n8.trans.b16 {}, {};",
        out(_) whole,
        in(_) u32::reinterpret(pair),
        options(nomem)
    );
    Vector::reinterpret(whole)
}
