//! The kernels of [`super::cube`], for devices without matrix units and for element types these do not take.

#![expect(clippy::too_many_lines, reason = "a kernel is one sweep: its loops share what is in registers")]

use cubecl::ir::ElemType;
use cubecl::prelude::*;

/// Stands for minus infinity, which not every target can spell: its exponential is zero beside any score.
pub(super) const NEVER: f32 = -1e30;

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

/// Attention, and the logarithm of each row's sum of exponentials.
#[cube(launch)]
pub(super) fn attention_forward<F: Float, A: Float>(
    queries: &[F],
    keys: &[F],
    values: &[F],
    out: &mut [F],
    sums: &mut [A],
    at: Places,
    scale: InputScalar,
    #[comptime] tile: Tile,
    #[define(F, A)] _types: [ElemType; 2],
) {
    let (rows_each, keys_each) = comptime!(each(tile));
    let columns_each = comptime!(tile.sizes.head_dim.div_ceil(ROW_UNITS));
    let (stride, score_stride) = comptime!((tile.sizes.head_dim + 1, tile.keys + 1));
    let rows_apart = comptime!(tile.units / ROW_UNITS);
    let group = comptime!(tile.sizes.group());
    let (y, x) = (UNIT_POS as usize / ROW_UNITS, UNIT_POS as usize % ROW_UNITS);
    let head = head(tile.sizes);
    let end_row = at.seq * group;
    let first_row = from_the_end(CUBE_POS_X, CUBE_COUNT_X) * tile.rows;
    let end_key = at.past + (min(first_row + tile.rows, end_row) - 1) / group + 1;

    let mut q = Shared::<[A]>::new_slice(comptime!(tile.rows * (tile.sizes.head_dim + 1)));
    let mut kv = Shared::<[A]>::new_slice(comptime!(tile.keys * (tile.sizes.head_dim + 1)));
    let mut scores = Shared::<[A]>::new_slice(comptime!(tile.rows * (tile.keys + 1)));
    load_rows::<F, A>(queries, &mut q, &head, first_row, end_row, &at, scale.get::<A>(), tile);

    let mut result = Array::<A>::new(comptime!(rows_each * columns_each));
    let mut largest = Array::<A>::new(rows_each);
    let mut sum = Array::<A>::new(rows_each);
    #[unroll]
    for i in 0..comptime!(rows_each * columns_each) {
        result[i] = A::new(0.0);
    }
    #[unroll]
    for i in 0..rows_each {
        largest[i] = A::new(NEVER);
        sum[i] = A::new(0.0);
    }
    for first_key in range_stepped(0, end_key, tile.keys) {
        load_keys::<F, A>(keys, &mut kv, &head, first_key, end_key, &at, false, tile);
        sync_cube();
        let score = products::<A>(&q, &kv, tile);
        #[unroll]
        for i in 0..rows_each {
            let row = y + i * rows_apart;
            let newest = at.past + (first_row + row) / group;
            #[unroll]
            for j in 0..keys_each {
                let key = x + j * ROW_UNITS;
                let mut seen = A::new(NEVER);
                if first_key + key <= newest && first_key + key < end_key {
                    seen = score[i * keys_each + j];
                }
                scores[row * score_stride + key] = seen;
            }
        }
        sync_cube();
        load_keys::<F, A>(values, &mut kv, &head, first_key, end_key, &at, true, tile);
        let mut mine = Array::<A>::new(comptime!(rows_each * keys_each));
        #[unroll]
        for i in 0..rows_each {
            let row = y + i * rows_apart;
            let mut new_largest = largest[i];
            for key in 0..tile.keys {
                new_largest = max(new_largest, scores[row * score_stride + key]);
            }
            let factor = (largest[i] - new_largest).exp();
            largest[i] = new_largest;
            sum[i] *= factor;
            #[unroll]
            for c in 0..columns_each {
                result[i * columns_each + c] *= factor;
            }
            #[unroll]
            for j in 0..keys_each {
                mine[i * keys_each + j] = (scores[row * score_stride + x + j * ROW_UNITS] - new_largest).exp();
            }
        }
        sync_cube();
        #[unroll]
        for i in 0..rows_each {
            #[unroll]
            for j in 0..keys_each {
                scores[(y + i * rows_apart) * score_stride + x + j * ROW_UNITS] = mine[i * keys_each + j];
            }
        }
        sync_cube();
        for key in 0..tile.keys {
            #[unroll]
            for i in 0..rows_each {
                let p = scores[(y + i * rows_apart) * score_stride + key];
                sum[i] += p;
                #[unroll]
                for c in 0..columns_each {
                    let d = x + c * ROW_UNITS;
                    if d < comptime!(tile.sizes.head_dim) {
                        result[i * columns_each + c] += p * kv[key * stride + d];
                    }
                }
            }
        }
        sync_cube();
    }
    #[unroll]
    for i in 0..rows_each {
        let row = first_row + y + i * rows_apart;
        if row < end_row {
            let to = row_at(&head, row, &at, tile.sizes);
            #[unroll]
            for c in 0..columns_each {
                let d = x + c * ROW_UNITS;
                if d < comptime!(tile.sizes.head_dim) {
                    out[to * comptime!(tile.sizes.head_dim) + d] = F::cast_from(result[i * columns_each + c] / sum[i]);
                }
            }
            if x == 0 {
                sums[to] = largest[i] + sum[i].ln();
            }
        }
    }
}

/// `sum over features of dO O` of every row and head, `[batch, seq, query]`.
#[cube(launch)]
pub(super) fn attention_delta<F: Float, A: Float, N: Size>(
    out: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    delta: &mut [A],
    vectors: usize,
    #[define(F, A)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS >= delta.len() {
        terminate!();
    }
    let mut sum = Vector::<A, N>::new(A::new(0.0));
    for i in 0..vectors {
        let at = ABSOLUTE_POS * vectors + i;
        sum += Vector::<A, N>::cast_from(out[at]) * Vector::cast_from(gradient[at]);
    }
    delta[ABSOLUTE_POS] = sum.vector_sum();
}

/// Writes this unit's part of `P` and of `dS`, scores of a tile recomputed from saved sums.
#[cube]
fn score_gradients<A: Float>(
    tiles: &Loaded<A>,
    p: &mut Shared<[A]>,
    d_s: &mut Shared<[A]>,
    sums: &[A],
    delta: &[A],
    head: &Head,
    first_row: usize,
    first_key: usize,
    at: &Places,
    #[comptime] tile: Tile,
) {
    let (rows_each, keys_each) = comptime!(each(tile));
    let rows_apart = comptime!(tile.units / ROW_UNITS);
    let (y, x) = (UNIT_POS as usize / ROW_UNITS, UNIT_POS as usize % ROW_UNITS);
    let group = comptime!(tile.sizes.group());
    let score = products::<A>(&tiles.q, &tiles.k, tile);
    let d_p = products::<A>(&tiles.d_out, &tiles.v, tile);
    #[unroll]
    for i in 0..rows_each {
        let row = y + i * rows_apart;
        let newest = at.past + (first_row + row) / group;
        let inside = first_row + row < at.seq * group;
        #[unroll]
        for j in 0..keys_each {
            let key = x + j * ROW_UNITS;
            let mut probability = A::new(0.0);
            let mut slope = A::new(0.0);
            if inside && first_key + key <= newest {
                let from = row_at(head, first_row + row, at, tile.sizes);
                probability = (score[i * keys_each + j] - sums[from]).exp();
                slope = probability * (d_p[i * keys_each + j] - delta[from]);
            }
            p[row * comptime!(tile.keys + 1) + key] = probability;
            d_s[row * comptime!(tile.keys + 1) + key] = slope;
        }
    }
}

/// The tiles a backward sweep holds.
#[derive(CubeType)]
struct Loaded<A: Float> {
    /// Queries, scaled.
    q: Shared<[A]>,
    k: Shared<[A]>,
    v: Shared<[A]>,
    d_out: Shared<[A]>,
}

#[cube]
fn loaded<A: Float>(#[comptime] tile: Tile) -> Loaded<A> {
    let (rows, keys) = comptime!((tile.rows * (tile.sizes.head_dim + 1), tile.keys * (tile.sizes.head_dim + 1)));
    Loaded::<A> {
        q: Shared::<[A]>::new_slice(rows),
        k: Shared::<[A]>::new_slice(keys),
        v: Shared::<[A]>::new_slice(keys),
        d_out: Shared::<[A]>::new_slice(rows),
    }
}

/// Gradients of the queries of one tile: all keys they see pass by.
#[cube(launch)]
pub(super) fn attention_query_gradients<F: Float, A: Float>(
    qkv: &[F],
    gradient: &[F],
    sums: &[A],
    delta: &[A],
    d_qkv: &mut [F],
    at: Places,
    scale: InputScalar,
    #[comptime] tile: Tile,
    #[define(F, A)] _types: [ElemType; 2],
) {
    let rows_each = comptime!(each(tile).0);
    let columns_each = comptime!(tile.sizes.head_dim.div_ceil(ROW_UNITS));
    let (stride, score_stride) = comptime!((tile.sizes.head_dim + 1, tile.keys + 1));
    let rows_apart = comptime!(tile.units / ROW_UNITS);
    let group = comptime!(tile.sizes.group());
    let (y, x) = (UNIT_POS as usize / ROW_UNITS, UNIT_POS as usize % ROW_UNITS);
    let head = head(tile.sizes);
    let scale = scale.get::<A>();
    let end_row = at.seq * group;
    let first_row = from_the_end(CUBE_POS_X, CUBE_COUNT_X) * tile.rows;
    let end_key = at.past + (min(first_row + tile.rows, end_row) - 1) / group + 1;
    let mut tiles = loaded::<A>(tile);
    let mut p = Shared::<[A]>::new_slice(comptime!(tile.rows * (tile.keys + 1)));
    let mut d_s = Shared::<[A]>::new_slice(comptime!(tile.rows * (tile.keys + 1)));
    load_rows::<F, A>(qkv, &mut tiles.q, &head, first_row, end_row, &at, scale, tile);
    load_results::<F, A>(gradient, &mut tiles.d_out, &head, first_row, end_row, &at, tile);
    let mut d_q = Array::<A>::new(comptime!(rows_each * columns_each));
    #[unroll]
    for i in 0..comptime!(rows_each * columns_each) {
        d_q[i] = A::new(0.0);
    }
    for first_key in range_stepped(0, end_key, tile.keys) {
        load_keys::<F, A>(qkv, &mut tiles.k, &head, first_key, end_key, &at, false, tile);
        load_keys::<F, A>(qkv, &mut tiles.v, &head, first_key, end_key, &at, true, tile);
        sync_cube();
        score_gradients::<A>(&tiles, &mut p, &mut d_s, sums, delta, &head, first_row, first_key, &at, tile);
        sync_cube();
        for key in 0..tile.keys {
            #[unroll]
            for i in 0..rows_each {
                let slope = d_s[(y + i * rows_apart) * score_stride + key];
                #[unroll]
                for c in 0..columns_each {
                    let d = x + c * ROW_UNITS;
                    if d < comptime!(tile.sizes.head_dim) {
                        d_q[i * columns_each + c] += slope * tiles.k[key * stride + d];
                    }
                }
            }
        }
        sync_cube();
    }
    #[unroll]
    for i in 0..rows_each {
        let row = first_row + y + i * rows_apart;
        if row < end_row {
            let to = query_at(&head, row, &at, tile.sizes);
            #[unroll]
            for c in 0..columns_each {
                let d = x + c * ROW_UNITS;
                if d < comptime!(tile.sizes.head_dim) {
                    d_qkv[to + d] = F::cast_from(d_q[i * columns_each + c] * scale);
                }
            }
        }
    }
}

/// Gradients of the keys and values of one tile: all rows that see them pass by.
#[cube(launch)]
pub(super) fn attention_key_gradients<F: Float, A: Float>(
    qkv: &[F],
    gradient: &[F],
    sums: &[A],
    delta: &[A],
    d_qkv: &mut [F],
    at: Places,
    scale: InputScalar,
    #[comptime] tile: Tile,
    #[define(F, A)] _types: [ElemType; 2],
) {
    let keys_each = comptime!((tile.keys * ROW_UNITS).div_ceil(tile.units));
    let columns_each = comptime!(tile.sizes.head_dim.div_ceil(ROW_UNITS));
    let (stride, score_stride) = comptime!((tile.sizes.head_dim + 1, tile.keys + 1));
    let keys_apart = comptime!(tile.units / ROW_UNITS);
    let group = comptime!(tile.sizes.group());
    let (y, x) = (UNIT_POS as usize / ROW_UNITS, UNIT_POS as usize % ROW_UNITS);
    let head = head(tile.sizes);
    let scale = scale.get::<A>();
    let end_row = at.seq * group;
    let end_key = at.past + at.seq;
    let first_key = CUBE_POS_X as usize * tile.keys;
    let mut tiles = loaded::<A>(tile);
    let mut p = Shared::<[A]>::new_slice(comptime!(tile.rows * (tile.keys + 1)));
    let mut d_s = Shared::<[A]>::new_slice(comptime!(tile.rows * (tile.keys + 1)));
    load_keys::<F, A>(qkv, &mut tiles.k, &head, first_key, end_key, &at, false, tile);
    load_keys::<F, A>(qkv, &mut tiles.v, &head, first_key, end_key, &at, true, tile);
    let mut d_k = Array::<A>::new(comptime!(keys_each * columns_each));
    let mut d_v = Array::<A>::new(comptime!(keys_each * columns_each));
    #[unroll]
    for i in 0..comptime!(keys_each * columns_each) {
        d_k[i] = A::new(0.0);
        d_v[i] = A::new(0.0);
    }
    // Earlier rows see none of these keys.
    let start = first_key * group / tile.rows * tile.rows;
    for first_row in range_stepped(start, end_row, tile.rows) {
        load_rows::<F, A>(qkv, &mut tiles.q, &head, first_row, end_row, &at, scale, tile);
        load_results::<F, A>(gradient, &mut tiles.d_out, &head, first_row, end_row, &at, tile);
        sync_cube();
        score_gradients::<A>(&tiles, &mut p, &mut d_s, sums, delta, &head, first_row, first_key, &at, tile);
        sync_cube();
        for row in 0..tile.rows {
            #[unroll]
            for i in 0..keys_each {
                let key = y + i * keys_apart;
                let probability = p[row * score_stride + key];
                let slope = d_s[row * score_stride + key];
                #[unroll]
                for c in 0..columns_each {
                    let d = x + c * ROW_UNITS;
                    if d < comptime!(tile.sizes.head_dim) {
                        d_v[i * columns_each + c] += probability * tiles.d_out[row * stride + d];
                        d_k[i * columns_each + c] += slope * tiles.q[row * stride + d];
                    }
                }
            }
        }
        sync_cube();
    }
    #[unroll]
    for i in 0..keys_each {
        let key = first_key + y + i * keys_apart;
        if key < end_key {
            let (to_key, to_value) = (key_at(&head, key, &at), value_at(&head, key, &at));
            #[unroll]
            for c in 0..columns_each {
                let d = x + c * ROW_UNITS;
                if d < comptime!(tile.sizes.head_dim) {
                    d_qkv[to_key + d] = F::cast_from(d_k[i * columns_each + c]);
                    d_qkv[to_value + d] = F::cast_from(d_v[i * columns_each + c]);
                }
            }
        }
    }
}
