//! Gradients of keys and values, the rows of a tile of keys shared out among cubes.

use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::packed::Packed;
use super::places::{Places, Sizes, head_of, key_at, value_at};
use crate::ops::cube::{accumulator, element, new_tensor, one_each, processors, vector_size};

/// Most cubes that share a tile.
const MOST_SPLITS: usize = 8;

/// What each of `splits` cubes found, `[splits, batch * key_value, seq, 2 * head_dim]`: a key's gradient, then its value's.
pub(super) struct Parts {
    tensor: CubeTensor,
    pub splits: usize,
}

impl Parts {
    /// For tiles of `keys`, past which `rows` go at a time, so that every processor of the device has about
    /// `per_processor` cubes; none has fewer than two steps of rows on average.
    pub fn new(qkv: &CubeTensor, at: &Packed, [keys, rows]: [usize; 2], per_processor: usize) -> Self {
        let cubes = at.key_tiles(keys).iter().product::<usize>().max(1);
        let steps = at.seq * at.heads.group() / 2 / rows;
        let wanted = (per_processor * processors(&qkv.client) + cubes / 2) / cubes;
        let splits = wanted.min(steps / 2).clamp(1, MOST_SPLITS);
        // One cube writes the result itself; its kernel has the argument all the same.
        let (parts, seq) = if splits == 1 { (1, 1) } else { (splits * at.batch * at.heads.key_value, at.seq) };
        let tensor = new_tensor(qkv, [parts, seq, 2 * at.head_dim], accumulator(qkv.dtype));
        Self { tensor, splits }
    }

    /// For the kernel that finds them.
    pub fn argument(&self) -> BufferArg {
        self.tensor.clone().into_buffer_arg()
    }

    /// Adds them up in `d_qkv`.
    pub fn combine(self, d_qkv: CubeTensor, at: &Packed) {
        if self.splits == 1 {
            return;
        }
        let (client, dtype, wide) = (d_qkv.client.clone(), d_qkv.dtype, self.tensor.dtype);
        let vector = vector_size(&client, at.head_dim, &[dtype, wide]);
        let work = at.batch * at.heads.key_value * at.seq * 2 * at.head_dim / vector;
        let (count, dim) = one_each(&client, work);
        key_gradients_combine::launch(
            &client,
            count,
            dim,
            vector,
            self.tensor.into_buffer_arg(),
            d_qkv.into_buffer_arg(),
            at.launch(),
            work,
            at.sizes(),
            vector,
            self.splits,
            [element(dtype), element(wide)],
        );
    }
}

/// Where the part of a key begins, by the cube's split and its number among all key-value heads of all sequences.
#[cube]
pub(super) fn part_at(split: usize, pair: usize, key: usize, at: &Places, #[comptime] sizes: Sizes) -> usize {
    ((split * CUBE_COUNT_Y as usize + pair) * at.seq + key) * comptime!(2 * sizes.head_dim)
}

/// `work` vectors of each part.
#[cube(launch)]
fn key_gradients_combine<F: Float, A: Float, N: Size>(
    parts: &[Vector<A, N>],
    d_qkv: &mut [Vector<F, N>],
    at: Places,
    work: usize,
    #[comptime] sizes: Sizes,
    #[comptime] vector: usize,
    #[comptime] splits: usize,
    #[define(F, A)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS >= work {
        terminate!();
    }
    let width = comptime!(sizes.head_dim / vector);
    let (row, feature) = (ABSOLUTE_POS / comptime!(2 * width), ABSOLUTE_POS % comptime!(2 * width));
    let (pair, key) = (row / at.seq, row % at.seq);
    let head = head_of(pair, sizes);
    let mut sum = parts[ABSOLUTE_POS];
    #[unroll]
    for split in 1..splits {
        sum += parts[split * work + ABSOLUTE_POS];
    }
    let mut to = key_at(&head, key, &at);
    if feature >= width {
        to = value_at(&head, key, &at);
    }
    d_qkv[to / vector + feature % width] = Vector::cast_from(sum);
}
