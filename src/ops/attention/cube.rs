//! Attention in tiles with an online softmax (Dao et al. 2022, arXiv:2205.14135; Dao 2023, arXiv:2307.08691): no score
//! matrix in memory, tiles of keys that no query of a tile sees are not visited, and the query heads that share a
//! key-value head are further rows of the same tile, so that keys and values are read once for all of them. Backward are
//! two sweeps, one for queries and one for keys and values, each writing what is its own: no atomics.

use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::ir::features::MmaConfig;
use cubecl::ir::{ElemType, IntKind};
use cubecl::prelude::*;

use super::decode_kernels::{DecodeTile, attention_combine, attention_decode, attention_decode_at};
use super::kernels::{
    PlacesLaunch, Sizes, Tile, attention_delta, attention_forward, attention_key_gradients, attention_query_gradients,
};
use super::matrix_kernels::{
    MatrixTile, PAIR, PLANE, WIDE, matrix_forward, matrix_key_gradients, matrix_query_gradients,
};
use super::{AttentionOps, CachedAttentionOps, Heads};
use crate::ops::cube::{Team, accumulator, element, new_tensor, one_each, row_major, vector_size};

/// Keys a cube works through before others are put beside it.
const KEYS_PER_SPLIT: usize = 256;

/// Units of a cube that decodes: each scores one key at a time.
const DECODE_UNITS: usize = 128;

/// Most cubes that share the keys of one key-value head.
const MOST_SPLITS: usize = 64;

impl AttentionOps for CubeBackend {
    fn packed_attention(qkv: FloatTensor<Self>, heads: Heads) -> FloatTensor<Self> {
        Self::packed_attention_saving(qkv, heads).0
    }

    fn packed_attention_saving(qkv: FloatTensor<Self>, heads: Heads) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let qkv = row_major(qkv);
        let at = Packed::of(&qkv, heads);
        forward(qkv.clone(), qkv.clone(), qkv, &at, heads)
    }

    fn packed_attention_backward(
        qkv: FloatTensor<Self>,
        out: FloatTensor<Self>,
        saved: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        heads: Heads,
    ) -> FloatTensor<Self> {
        let (qkv, out, gradient) = (row_major(qkv), row_major(out), row_major(gradient));
        let (client, dtype, wide) = (qkv.client.clone(), qkv.dtype, accumulator(qkv.dtype));
        let at = Packed::of(&qkv, heads);
        let delta = new_tensor(&qkv, saved.shape(), wide);
        let vector = vector_size(&client, at.head_dim, &[dtype]);
        let (count, dim) = one_each(&client, delta.shape().num_elements());
        attention_delta::launch(
            &client,
            count,
            dim,
            vector,
            out.into_buffer_arg(),
            gradient.clone().into_buffer_arg(),
            delta.clone().into_buffer_arg(),
            at.head_dim / vector,
            [element(dtype), element(wide)],
        );
        let d_qkv = new_tensor(&qkv, qkv.shape(), dtype);
        if let Some(tile) = MatrixTile::of(&client, heads, at.head_dim, dtype) {
            matrix_gradients(tile, &at, qkv, gradient, saved, delta, d_qkv.clone());
            return d_qkv;
        }
        let tile = Tile::backward(&client, heads, at.head_dim, wide);
        let types = [element(dtype), element(wide)];
        let scale = || InputScalar::new(scale(at.head_dim), element(wide));
        attention_query_gradients::launch(
            &client,
            row_cubes(&at, heads, tile.rows),
            CubeDim::new_1d(tile.units as u32),
            qkv.clone().into_buffer_arg(),
            gradient.clone().into_buffer_arg(),
            saved.clone().into_buffer_arg(),
            delta.clone().into_buffer_arg(),
            d_qkv.clone().into_buffer_arg(),
            at.launch(),
            scale(),
            tile,
            types,
        );
        attention_key_gradients::launch(
            &client,
            key_cubes(&at, heads, tile.keys),
            CubeDim::new_1d(tile.units as u32),
            qkv.into_buffer_arg(),
            gradient.into_buffer_arg(),
            saved.into_buffer_arg(),
            delta.into_buffer_arg(),
            d_qkv.clone().into_buffer_arg(),
            at.launch(),
            scale(),
            tile,
            types,
        );
        d_qkv
    }
}

impl CachedAttentionOps for CubeBackend {
    fn cached_attention(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        length: usize,
        heads: Heads,
    ) -> FloatTensor<Self> {
        let (queries, keys, values) = (row_major(queries), row_major(keys), row_major(values));
        let at = Packed::cached(&queries, &keys, length, heads);
        if at.seq == 1 {
            decode(queries, keys, values, Newest::Known(length - 1), &at, heads)
        } else {
            forward(queries, keys, values, &at, heads).0
        }
    }

    fn attention_at(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        position: IntTensor<Self>,
        heads: Heads,
    ) -> FloatTensor<Self> {
        let (queries, keys, values) = (row_major(queries), row_major(keys), row_major(values));
        let at = Packed::cached(&queries, &keys, 1, heads);
        decode(queries, keys, values, Newest::InTensor(row_major(position)), &at, heads)
    }
}

/// Where the newest position is said.
#[expect(clippy::large_enum_variant, reason = "lives for one launch")]
enum Newest {
    Known(usize),
    InTensor(CubeTensor),
}

fn scale(head_dim: usize) -> f64 {
    1.0 / (head_dim as f64).sqrt()
}

/// Sizes, and where heads lie in their buffers, in elements.
struct Packed {
    batch: usize,
    seq: usize,
    head_dim: usize,
    /// Positions before the first query.
    past: usize,
    /// Positions a key-value head has room for.
    capacity: usize,
    query_row: usize,
    key_batch: usize,
    key_row: usize,
    key_head: usize,
    first_key: usize,
    first_value: usize,
}

impl Packed {
    /// Queries, keys and values side by side in the rows of one tensor.
    fn of(qkv: &CubeTensor, heads: Heads) -> Self {
        let [batch, seq, width] = qkv.shape().dims();
        assert!(
            width.is_multiple_of(heads.packed()),
            "attention: a packed row of {width} does not divide into {heads:?}"
        );
        let head_dim = width / heads.packed();
        Self {
            batch,
            seq,
            head_dim,
            past: 0,
            capacity: seq,
            query_row: width,
            key_batch: seq * width,
            key_row: width,
            key_head: head_dim,
            first_key: heads.query * head_dim,
            first_value: (heads.query + heads.key_value) * head_dim,
        }
    }

    /// Keys and values in caches `[batch, key_value, capacity, head_dim]`, of which `length` positions are filled.
    fn cached(queries: &CubeTensor, keys: &CubeTensor, length: usize, heads: Heads) -> Self {
        let [batch, seq, width] = queries.shape().dims();
        let [_, _, capacity, head_dim] = keys.shape().dims();
        assert!(seq <= length && length <= capacity, "attention: {seq} of {length} positions in a cache of {capacity}");
        Self {
            batch,
            seq,
            head_dim,
            past: length - seq,
            capacity,
            query_row: width,
            key_batch: heads.key_value * capacity * head_dim,
            key_row: head_dim,
            key_head: capacity * head_dim,
            first_key: 0,
            first_value: 0,
        }
    }

    fn launch(&self) -> PlacesLaunch {
        PlacesLaunch::new(
            self.seq,
            self.past,
            self.query_row,
            self.key_batch,
            self.key_row,
            self.key_head,
            self.first_key,
            self.first_value,
        )
    }
}

impl Tile {
    /// The largest tile whose `matrices` of rows and `scores` fit in a cube's memory.
    fn fitting(client: &Client, heads: Heads, head_dim: usize, wide: DType, [matrices, scores]: [usize; 2]) -> Self {
        let memory = client.properties().hardware.max_shared_memory_size / wide.size();
        let fits = |size: usize| matrices * size * (head_dim + 1) + scores * size * (size + 1) <= memory;
        let size = [32, 16, 8].into_iter().find(|size| fits(*size)).unwrap_or(8);
        Self {
            rows: size,
            keys: size,
            units: 64,
            sizes: Sizes { query: heads.query, key_value: heads.key_value, head_dim },
        }
    }

    fn forward(client: &Client, heads: Heads, head_dim: usize, wide: DType) -> Self {
        Self::fitting(client, heads, head_dim, wide, [2, 1])
    }

    fn backward(client: &Client, heads: Heads, head_dim: usize, wide: DType) -> Self {
        Self::fitting(client, heads, head_dim, wide, [4, 2])
    }
}

/// A cube for each `rows` positions of the query heads that share a key-value head.
fn row_cubes(at: &Packed, heads: Heads, rows: usize) -> CubeCount {
    CubeCount::new_2d((at.seq * heads.group()).div_ceil(rows) as u32, (at.batch * heads.key_value) as u32)
}

/// A cube for each `keys` positions of a key-value head.
fn key_cubes(at: &Packed, heads: Heads, keys: usize) -> CubeCount {
    CubeCount::new_2d(at.seq.div_ceil(keys) as u32, (at.batch * heads.key_value) as u32)
}

impl MatrixTile {
    /// The tile for a device that multiplies matrices of this type, if it does and heads are of a width it can take.
    fn of(client: &Client, heads: Heads, head_dim: usize, dtype: DType) -> Option<Self> {
        let (properties, hardware) = (client.properties(), &client.properties().hardware);
        let (float, wide) = (element(dtype), element(DType::F32));
        let product = MmaConfig { a_type: float, b_type: float, cd_type: wide, m: 16, n: 8, k: 16 };
        let matmul = &properties.features.matmul;
        let planes = hardware.plane_size_min as usize == PLANE && hardware.plane_size_max as usize == PLANE;
        let fits = head_dim.is_multiple_of(16) && head_dim <= 128;
        let can = planes && fits && matmul.mma.contains(&product) && matmul.ldmatrix.contains(&float);
        let sizes = Sizes { query: heads.query, key_value: heads.key_value, head_dim };
        // Wider heads leave fewer registers for what passes by.
        can.then_some(Self { planes: 4, passing: if head_dim > 64 { 32 } else { 64 }, sizes })
    }
}

/// Writes the gradients of all queries, keys and values.
fn matrix_gradients(
    tile: MatrixTile,
    at: &Packed,
    qkv: CubeTensor,
    gradient: CubeTensor,
    sums: CubeTensor,
    delta: CubeTensor,
    d_qkv: CubeTensor,
) {
    let (client, float) = (qkv.client.clone(), element(qkv.dtype));
    let heads = Heads { query: tile.sizes.query, key_value: tile.sizes.key_value };
    let dim = CubeDim::new_1d(tile.units() as u32);
    let scale = scale(at.head_dim) as f32;
    matrix_query_gradients::launch(
        &client,
        row_cubes(at, heads, tile.staying()),
        dim,
        WIDE,
        PAIR,
        qkv.clone().into_buffer_arg(),
        gradient.clone().into_buffer_arg(),
        sums.clone().into_buffer_arg(),
        delta.clone().into_buffer_arg(),
        d_qkv.clone().into_buffer_arg(),
        at.launch(),
        scale,
        tile,
        float,
    );
    matrix_key_gradients::launch(
        &client,
        key_cubes(at, heads, tile.staying()),
        dim,
        WIDE,
        PAIR,
        qkv.into_buffer_arg(),
        gradient.into_buffer_arg(),
        sums.into_buffer_arg(),
        delta.into_buffer_arg(),
        d_qkv.into_buffer_arg(),
        at.launch(),
        scale,
        tile,
        float,
    );
}

/// Attention `[batch, seq, query * head_dim]` and the logarithm of each row's softmax sum `[batch, seq, query]`.
fn forward(
    queries: CubeTensor,
    keys: CubeTensor,
    values: CubeTensor,
    at: &Packed,
    heads: Heads,
) -> (CubeTensor, CubeTensor) {
    let (client, dtype, wide) = (queries.client.clone(), queries.dtype, accumulator(queries.dtype));
    let out = new_tensor(&queries, [at.batch, at.seq, heads.query * at.head_dim], dtype);
    let sums = new_tensor(&queries, [at.batch, at.seq, heads.query], wide);
    if let Some(tile) = MatrixTile::of(&client, heads, at.head_dim, dtype) {
        matrix_forward::launch(
            &client,
            row_cubes(at, heads, tile.staying()),
            CubeDim::new_1d(tile.units() as u32),
            WIDE,
            PAIR,
            queries.into_buffer_arg(),
            keys.into_buffer_arg(),
            values.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            sums.clone().into_buffer_arg(),
            at.launch(),
            scale(at.head_dim) as f32,
            tile,
            element(dtype),
        );
        return (out, sums);
    }
    let tile = Tile::forward(&client, heads, at.head_dim, wide);
    attention_forward::launch(
        &client,
        row_cubes(at, heads, tile.rows),
        CubeDim::new_1d(tile.units as u32),
        queries.into_buffer_arg(),
        keys.into_buffer_arg(),
        values.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        sums.clone().into_buffer_arg(),
        at.launch(),
        InputScalar::new(scale(at.head_dim), element(wide)),
        tile,
        [element(dtype), element(wide)],
    );
    (out, sums)
}

/// One query for each head, against all keys up to the newest: long caches are shared out among cubes, whose parts are
/// put together afterwards (flash decoding).
fn decode(
    queries: CubeTensor,
    keys: CubeTensor,
    values: CubeTensor,
    newest: Newest,
    at: &Packed,
    heads: Heads,
) -> CubeTensor {
    let (client, dtype, wide) = (queries.client.clone(), queries.dtype, accumulator(queries.dtype));
    let out = new_tensor(&queries, [at.batch, 1, heads.query * at.head_dim], dtype);
    // By capacity, not by length: shapes and kernels are then the same at every position.
    let splits = at.capacity.div_ceil(KEYS_PER_SPLIT).clamp(1, MOST_SPLITS);
    let team = Team::new(&client, DECODE_UNITS);
    let tile = DecodeTile {
        team,
        group: heads.group(),
        key_value: heads.key_value,
        head_dim: at.head_dim,
        splits,
        split_keys: at.capacity.div_ceil(splits),
    };
    let partial = new_tensor(&queries, [at.batch, heads.query, splits, at.head_dim + 2], wide);
    let vector = vector_size(&client, at.head_dim, &[dtype]);
    let count = CubeCount::new_2d(splits as u32, (at.batch * heads.key_value) as u32);
    let dim = CubeDim::new_1d(team.units as u32);
    let scale = InputScalar::new(scale(at.head_dim), element(wide));
    let (floats, partial_to) = ([element(dtype), element(wide)], partial.clone());
    match newest {
        Newest::Known(newest) => attention_decode::launch(
            &client,
            count,
            dim,
            vector,
            queries.into_buffer_arg(),
            keys.into_buffer_arg(),
            values.into_buffer_arg(),
            partial_to.into_buffer_arg(),
            newest,
            at.query_row,
            at.capacity,
            scale,
            tile,
            floats,
        ),
        Newest::InTensor(position) => {
            let integer = ElemType::Int(match position.dtype {
                DType::I64 => IntKind::I64,
                _ => IntKind::I32,
            });
            attention_decode_at::launch(
                &client,
                count,
                dim,
                vector,
                queries.into_buffer_arg(),
                keys.into_buffer_arg(),
                values.into_buffer_arg(),
                position.into_buffer_arg(),
                partial_to.into_buffer_arg(),
                at.query_row,
                at.capacity,
                scale,
                tile,
                [floats[0], floats[1], integer],
            );
        }
    }
    let (count, dim) = one_each(&client, out.shape().num_elements());
    attention_combine::launch(
        &client,
        count,
        dim,
        partial.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        at.head_dim,
        splits,
        floats,
    );
    out
}
