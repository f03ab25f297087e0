//! The two passes over whole sequences, and how their kernels are launched on a tile.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::prelude::*;

use super::matrices::{MatrixTile, PAIR, WIDE, matrix_forward, matrix_key_gradients, matrix_query_gradients};
use super::packed::Packed;
use super::parts::Parts;
use super::units::{Tile, attention_forward, attention_key_gradients, attention_query_gradients};
use crate::ops::cube::{accumulator, element, multiplies, processors};

/// Cubes of the sweep over keys that a processor is to have. Those of plain units are small.
const MATRICES_PER_PROCESSOR: usize = 2;
const UNITS_PER_PROCESSOR: usize = 4;

/// Most planes of a cube of matrices in that sweep: of larger cubes a processor has room for one.
const MOST_KEY_PLANES: usize = 4;

/// Units of a cube of matrices up to which a processor has registers for two, however many they need.
const UNITS_OF_TWO: usize = 128;

/// What a cube works on at a time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Choice {
    Units(Tile),
    Matrices(MatrixTile),
}

/// One pass: tensors to read and to write.
pub(super) trait Pass: Clone + Send + Sync + 'static {
    /// Rows of a tile, and of a tile's scores, that plain units keep in a cube's memory.
    const BUFFERS: [usize; 2];
    /// Matrices whose rows stay with a cube.
    const STAYING: usize;
    /// Most steps of rows that pass by for which a cube's memory has room: one that is worked on, and those that arrive meanwhile.
    const MOST_SLOTS: usize;

    /// Sizes, and a tensor of the element type.
    fn places(&self) -> (&Packed, &CubeTensor);

    /// Computes all of it on tiles of one kind.
    fn launch(self, choice: Choice);
}

/// Attention, and the logarithm of each row's softmax sum.
#[derive(Clone)]
pub(super) struct Forward {
    pub queries: CubeTensor,
    pub keys: CubeTensor,
    pub values: CubeTensor,
    pub out: CubeTensor,
    pub sums: CubeTensor,
    pub at: Packed,
}

impl Pass for Forward {
    const BUFFERS: [usize; 2] = [2, 1];
    const STAYING: usize = 1;
    const MOST_SLOTS: usize = 3;

    fn places(&self) -> (&Packed, &CubeTensor) {
        (&self.at, &self.queries)
    }

    fn launch(self, choice: Choice) {
        let Self { queries, keys, values, out, sums, at } = self;
        let (client, dtype, wide) = (queries.client.clone(), queries.dtype, accumulator(queries.dtype));
        let [queries, keys, values] = [queries, keys, values].map(CubeTensor::into_buffer_arg);
        let [out, sums] = [out, sums].map(CubeTensor::into_buffer_arg);
        match choice {
            Choice::Matrices(tile) => matrix_forward::launch(
                &client,
                at.row_cubes(tile.staying()),
                CubeDim::new_1d(tile.units() as u32),
                WIDE,
                PAIR,
                queries,
                keys,
                values,
                out,
                sums,
                at.launch(),
                at.scale() as f32,
                tile.first_tiles::<Self>(&client, at.row_tiles(tile.staying())),
                tile,
                element(dtype),
            ),
            Choice::Units(tile) => attention_forward::launch(
                &client,
                at.row_cubes(tile.rows),
                CubeDim::new_1d(tile.units as u32),
                queries,
                keys,
                values,
                out,
                sums,
                at.launch(),
                InputScalar::new(at.scale(), element(wide)),
                tile,
                [element(dtype), element(wide)],
            ),
        }
    }
}

/// The gradients of all queries, keys and values.
#[derive(Clone)]
pub(super) struct Backward {
    pub qkv: CubeTensor,
    pub gradient: CubeTensor,
    /// The logarithm of each row's softmax sum.
    pub sums: CubeTensor,
    /// Each row's result times its gradient, summed.
    pub delta: CubeTensor,
    pub d_qkv: CubeTensor,
    pub at: Packed,
}

impl Pass for Backward {
    const BUFFERS: [usize; 2] = [4, 2];
    const STAYING: usize = 2;
    // As many as its kernels have.
    const MOST_SLOTS: usize = 2;

    fn places(&self) -> (&Packed, &CubeTensor) {
        (&self.at, &self.qkv)
    }

    fn launch(self, choice: Choice) {
        let (client, dtype, wide) = (self.qkv.client.clone(), self.qkv.dtype, accumulator(self.qkv.dtype));
        let at = self.at;
        let tensors = || {
            let Self { qkv, gradient, sums, delta, d_qkv, .. } = self.clone();
            [qkv, gradient, sums, delta, d_qkv].map(CubeTensor::into_buffer_arg)
        };
        let ([qkv, gradient, sums, delta, d_qkv], [qkv_, gradient_, sums_, delta_, d_qkv_]) = (tensors(), tensors());
        match choice {
            Choice::Matrices(tile) => {
                let scale = at.scale() as f32;
                let key_tile = tile.of_keys();
                let sizes = [key_tile.staying(), key_tile.passing];
                let parts = Parts::new(&self.qkv, &at, sizes, MATRICES_PER_PROCESSOR);
                let (rows, keys) = (at.row_cubes(tile.staying()), at.key_cubes(key_tile.staying(), parts.splits));
                let [key_tiles, heads] = at.key_tiles(key_tile.staying());
                matrix_query_gradients::launch(
                    &client,
                    rows,
                    CubeDim::new_1d(tile.units() as u32),
                    WIDE,
                    PAIR,
                    qkv,
                    gradient,
                    sums,
                    delta,
                    d_qkv,
                    at.launch(),
                    scale,
                    tile.first_tiles::<Self>(&client, at.row_tiles(tile.staying())),
                    tile,
                    element(dtype),
                );
                matrix_key_gradients::launch(
                    &client,
                    keys,
                    CubeDim::new_1d(key_tile.units() as u32),
                    WIDE,
                    PAIR,
                    qkv_,
                    gradient_,
                    sums_,
                    delta_,
                    d_qkv_,
                    parts.argument(),
                    at.launch(),
                    scale,
                    key_tile.first_tiles::<Self>(&client, [key_tiles, heads * parts.splits]),
                    key_tile,
                    parts.splits,
                    element(dtype),
                );
                parts.combine(self.d_qkv, &at);
            }
            Choice::Units(tile) => {
                let (dim, types) = (CubeDim::new_1d(tile.units as u32), [element(dtype), element(wide)]);
                let parts = Parts::new(&self.qkv, &at, [tile.keys, tile.rows], UNITS_PER_PROCESSOR);
                let (rows, keys) = (at.row_cubes(tile.rows), at.key_cubes(tile.keys, parts.splits));
                let scale = || InputScalar::new(at.scale(), element(wide));
                attention_query_gradients::launch(
                    &client,
                    rows,
                    dim,
                    qkv,
                    gradient,
                    sums,
                    delta,
                    d_qkv,
                    at.launch(),
                    scale(),
                    tile,
                    types,
                );
                attention_key_gradients::launch(
                    &client,
                    keys,
                    dim,
                    qkv_,
                    gradient_,
                    sums_,
                    delta_,
                    d_qkv_,
                    parts.argument(),
                    at.launch(),
                    scale(),
                    tile,
                    parts.splits,
                    types,
                );
                parts.combine(self.d_qkv, &at);
            }
        }
    }
}

impl Tile {
    /// The largest tile whose buffers fit in a cube's memory, or one of half its size; none has fewer than 8 rows.
    pub fn fitting(client: &Client, at: &Packed, dtype: DType, buffers: [usize; 2], halved: bool) -> Option<Self> {
        let memory = client.properties().hardware.max_shared_memory_size / accumulator(dtype).size();
        let [matrices, scores] = buffers;
        let fits = |size: usize| matrices * size * (at.head_dim + 1) + scores * size * (size + 1) <= memory;
        let largest = [32, 16, 8].into_iter().find(|size| fits(*size))?;
        let size = if halved { largest / 2 } else { largest };
        (size >= 8).then(|| Self { rows: size, keys: size, units: 64, sizes: at.sizes() })
    }
}

impl MatrixTile {
    /// The tile for a device that multiplies matrices of this type, if it does, heads are of a width it can take, and a
    /// cube's memory holds what stays and two steps or more of what passes by.
    pub fn of<P: Pass>(
        client: &Client,
        at: &Packed,
        dtype: DType,
        [planes, lefts, passing, shares]: [usize; 4],
    ) -> Option<Self> {
        // Wider heads leave fewer registers for what passes by.
        let passing = passing.min(if at.head_dim > 64 { 32 } else { 64 });
        let tile = |slots: usize| Self { planes, lefts, passing, shares, slots, sizes: at.sizes() };
        let memory = client.properties().hardware.max_shared_memory_size;
        let fits = at.head_dim.is_multiple_of(16) && at.head_dim <= 128;
        let tile = (2..=P::MOST_SLOTS).rev().map(tile).find(|tile| tile.memory(P::STAYING) <= memory)?;
        (fits && multiplies(client, dtype)).then_some(tile)
    }

    /// How many tiles begin one after the other, of those that have `each` cubes: all, or if each processor has room for its part of
    /// all cubes at once, those of its first cube.
    fn first_tiles<P: Pass>(self, client: &Client, [tiles, each]: [usize; 2]) -> usize {
        let (processors, memory) = (processors(client), client.properties().hardware.max_shared_memory_size);
        let two_fit = self.units() <= UNITS_OF_TWO && 2 * self.memory(P::STAYING) <= memory;
        if two_fit && tiles * each <= 2 * processors { (processors / each).max(1) } else { tiles }
    }

    /// The tile of the sweep over keys, whose sums fill a unit's registers: one left factor to a plane, and keys of its own.
    fn of_keys(self) -> Self {
        Self { planes: (self.planes * self.lefts * self.shares).min(MOST_KEY_PLANES), lefts: 1, shares: 1, ..self }
    }
}
