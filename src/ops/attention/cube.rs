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
use cubecl::prelude::*;

use super::decode::{
    DecodeTile, attention_combine, attention_decode, attention_decode_at, attention_decode_turned_at, fits_matrices,
    sharing,
};
use super::packed::Packed;
use super::passes::{Backward, Forward};
use super::units::attention_delta;
use super::{AttentionOps, CachedAttentionOps, Heads, choice};
use crate::ops::cube::{
    Team, accumulator, cubes, element, integer, multiplies, new_tensor, one_each, overlaps, processors, row_major,
    vector_size,
};

/// Keys up to which each query head has a cube of its own: the launch is what costs then, and all read the same keys.
const ONE_CUBE: usize = 256;

/// Keys that each of the cubes which share more of them has a multiple of, and most such cubes.
const STEP_KEYS: usize = 64;
const MOST_SPLITS: usize = 64;

/// Such cubes that a processor has room for at once, or one on matrix units with the units of all, if heads have no more features; and
/// multiples of keys that take as long as what a cube does before and after its own.
const CUBES_AT_ONCE: usize = 3;
const FEATURES_OF_ONE: usize = 128;
const STEPS_ASIDE: usize = 2;

/// Units of a cube that multiplies results with their gradients.
const DELTA_UNITS: usize = 256;

/// Units of a cube that decodes, alone or with others; and, without planes, most bytes of a head's sums in its memory.
const DECODE_UNITS: [usize; 2] = [256, 128];
const DECODE_BYTES: usize = 16 * 1024;

impl AttentionOps for CubeBackend {
    fn packed_attention(qkv: FloatTensor<Self>, heads: Heads) -> FloatTensor<Self> {
        Self::packed_attention_saving(qkv, heads).0
    }

    fn packed_attention_saving(qkv: FloatTensor<Self>, heads: Heads) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let qkv = row_major(qkv);
        let at = Packed::of(&qkv, heads);
        attend(qkv.clone(), qkv.clone(), qkv, at)
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
        let (rows, vectors) = (delta.shape().num_elements(), at.head_dim / vector);
        let team = Team::new(&client, DELTA_UNITS);
        let sharing = sharing(vectors, team.plane);
        let (count, dim) = cubes(&client, (rows * sharing).div_ceil(team.units), team.units);
        attention_delta::launch(
            &client,
            count,
            dim,
            vector,
            out.into_buffer_arg(),
            gradient.clone().into_buffer_arg(),
            delta.clone().into_buffer_arg(),
            rows,
            vectors,
            sharing,
            [element(dtype), element(wide)],
        );
        let d_qkv = new_tensor(&qkv, qkv.shape(), dtype);
        choice::backward(Backward { qkv, gradient, sums: saved, delta, d_qkv: d_qkv.clone(), at });
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
            decode(queries, keys, values, Newest::Known(length - 1), &at)
        } else {
            attend(queries, keys, values, at).0
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
        decode(queries, keys, values, Newest::InTensor(row_major(position)), &at)
    }

    fn turned_attention_at(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        position: IntTensor<Self>,
        heads: Heads,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [qkv, cos, sin, keys, values] = [qkv, cos, sin, keys, values].map(row_major);
        let at = Packed::cached(&qkv, &keys, 1, heads);
        let newest = Newest::Packed { position: row_major(position), cos, sin };
        (decode(qkv, keys.clone(), values.clone(), newest, &at), keys, values)
    }
}

/// Where the newest position is said.
#[expect(clippy::large_enum_variant, reason = "lives for one launch")]
enum Newest {
    Known(usize),
    InTensor(CubeTensor),
    /// Also in a tensor, and its key and value behind the queries, all of them still to be turned.
    Packed {
        position: CubeTensor,
        cos: CubeTensor,
        sin: CubeTensor,
    },
}

/// Attention `[batch, seq, query * head_dim]` and the logarithm of each row's softmax sum `[batch, seq, query]`.
fn attend(queries: CubeTensor, keys: CubeTensor, values: CubeTensor, at: Packed) -> (CubeTensor, CubeTensor) {
    let dtype = queries.dtype;
    let out = new_tensor(&queries, [at.batch, at.seq, at.heads.query * at.head_dim], dtype);
    let sums = new_tensor(&queries, [at.batch, at.seq, at.heads.query], accumulator(dtype));
    choice::forward(Forward { queries, keys, values, out: out.clone(), sums: sums.clone(), at });
    (out, sums)
}

/// One query for each head, against all keys up to the newest: long caches are shared out among cubes, whose parts are
/// put together afterwards (flash decoding).
fn decode(queries: CubeTensor, keys: CubeTensor, values: CubeTensor, newest: Newest, at: &Packed) -> CubeTensor {
    let (client, dtype, wide) = (queries.client.clone(), queries.dtype, accumulator(queries.dtype));
    let out = new_tensor(&queries, [at.batch, 1, at.heads.query * at.head_dim], dtype);
    let tile = decode_tile(&client, at, dtype, matches!(newest, Newest::Packed { .. }));
    let splits = tile.splits;
    let parts = if splits == 1 { 0 } else { at.batch * at.heads.query * splits };
    let partial = new_tensor(&queries, [parts.max(1), at.head_dim + 2], wide);
    let vector = tile.vector;
    let count = CubeCount::new_2d(splits as u32, (at.batch * tile.groups) as u32);
    let dim = CubeDim::new_1d(tile.team.units as u32);
    let scale = InputScalar::new(at.scale(), element(wide));
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
            out.clone().into_buffer_arg(),
            newest,
            at.query_row,
            at.capacity,
            scale,
            tile,
            floats,
        ),
        Newest::InTensor(position) => {
            let integer = integer(position.dtype);
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
                out.clone().into_buffer_arg(),
                at.query_row,
                at.capacity,
                scale,
                tile,
                [floats[0], floats[1], integer],
            );
        }
        Newest::Packed { position, cos, sin } => {
            let types = [element(dtype), element(cos.dtype), element(wide), integer(position.dtype)];
            let of_table = vector_size(&client, vector, &[cos.dtype]);
            attention_decode_turned_at::launch(
                &client,
                count,
                dim,
                vector,
                of_table,
                queries.into_buffer_arg(),
                cos.into_buffer_arg(),
                sin.into_buffer_arg(),
                keys.into_buffer_arg(),
                values.into_buffer_arg(),
                position.into_buffer_arg(),
                partial_to.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                at.query_row,
                at.capacity,
                scale,
                tile,
                types,
            );
        }
    }
    if splits == 1 {
        return out;
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
        tile.overlaps,
        floats,
    );
    out
}

/// Cubes, `times` as large as usual, that share the keys of each of `heads` heads: as many as let all be done first, if `processors`
/// take as many at once as they have room for. By capacity and not by length: shapes and kernels are then the same at every position.
fn splits(processors: usize, capacity: usize, heads: usize, times: usize) -> usize {
    if capacity <= ONE_CUBE {
        return 1;
    }
    let steps = capacity.div_ceil(STEP_KEYS * times);
    let room = match processors {
        // Also where the device does not tell.
        1 => MOST_SPLITS * heads,
        many => CUBES_AT_ONCE / times * many,
    };
    let time = |splits: &usize| (heads * splits).div_ceil(room) * (steps.div_ceil(*splits) + STEPS_ASIDE);
    (1..=steps.min(MOST_SPLITS)).min_by_key(time).unwrap_or(1)
}

/// How many times as large as usual cubes on matrix units are: as all together that a processor has room for, which leaves fewer parts to
/// put together, if there are keys for such a cube on each processor (`docs/results/decode_wide_h200.json`).
fn times_as_large(processors: usize, capacity: usize, heads: usize, head_dim: usize) -> usize {
    let fills = heads * capacity >= processors * CUBES_AT_ONCE * STEP_KEYS;
    if processors > 1 && fills && head_dim <= FEATURES_OF_ONE { CUBES_AT_ONCE } else { 1 }
}

/// What each cube does of a step of one query.
fn decode_tile(client: &Client, at: &Packed, dtype: DType, appends: bool) -> DecodeTile {
    let (processors, heads) = (processors(client), at.batch * at.heads.key_value);
    let [alone, beside_others] = DECODE_UNITS;
    let (size, short) = (accumulator(dtype).size(), at.capacity <= ONE_CUBE);
    let team = Team::new(client, if short { alone } else { beside_others });
    let most = DECODE_BYTES / (at.head_dim * size);
    let team = if team.plane == 1 { Team::new(client, 1 << most.max(1).ilog2()) } else { team };
    let tile = |groups_of_head: usize, on_matrices: bool| {
        let times = if on_matrices { times_as_large(processors, at.capacity, heads, at.head_dim) } else { 1 };
        let splits = splits(processors, at.capacity, heads, times);
        DecodeTile {
            team: Team::new(client, team.units * times),
            group: at.heads.group() / groups_of_head,
            groups: at.heads.key_value * groups_of_head,
            groups_of_head,
            head_dim: at.head_dim,
            // What turns are the halves of a head.
            vector: vector_size(client, if appends { at.head_dim / 2 } else { at.head_dim }, &[dtype]),
            splits,
            split_keys: at.capacity.div_ceil(splits).next_multiple_of(STEP_KEYS),
            appends,
            on_matrices,
            overlaps: overlaps(client),
        }
    };
    let most = client.properties().hardware.max_shared_memory_size;
    let fits = |tile: &DecodeTile| tile.elements() * size <= most;
    // Without planes every unit has a whole head's sums: few heads and few units then.
    let apart = short || team.plane == 1;
    let multiplies = !apart && fits_matrices(at.heads.group(), at.head_dim) && multiplies(client, dtype);
    let on_matrices = multiplies.then(|| tile(1, true)).filter(fits);
    let whole = || (!apart).then(|| tile(1, false)).filter(fits);
    on_matrices.or_else(whole).unwrap_or_else(|| tile(at.heads.group(), false))
}

#[cfg(test)]
mod tests {
    /// Of those that were measured on an H200 (`docs/results/decode_tried_h200.json`, `decode_planes_h200.json`) the fastest.
    #[test]
    fn a_head_has_as_many_cubes_as_are_done_first() {
        let (few, many, long) = ((132, 2176, 4), (132, 2176, 128), (132, 16512, 32));
        let times = [few, many, long].map(|(p, capacity, heads)| super::times_as_large(p, capacity, heads, 128));
        assert_eq!(times, [1, 3, 3]);
        let large = [many, long].map(|(p, capacity, heads)| super::splits(p, capacity, heads, 3));
        assert_eq!(large, [1, 4]);
        let found = [(132, 256, 4), few, many, long, (1, 2176, 4)]
            .map(|(p, capacity, heads)| super::splits(p, capacity, heads, 1));
        assert_eq!(found, [1, 34, 3, 12, 34]);
    }
}
