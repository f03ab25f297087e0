use burn::backend::TensorMetadata;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::Heads;
use super::places::{PlacesLaunch, Sizes};

/// Sizes, and where heads lie in their buffers, in elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed {
    pub heads: Heads,
    pub batch: usize,
    pub seq: usize,
    pub head_dim: usize,
    /// Positions before the first query.
    pub past: usize,
    /// Positions a key-value head has room for.
    pub capacity: usize,
    pub query_row: usize,
    key_batch: usize,
    key_row: usize,
    key_head: usize,
    first_key: usize,
    first_value: usize,
}

impl Packed {
    /// Queries, keys and values side by side in the rows of one tensor.
    pub fn of(qkv: &CubeTensor, heads: Heads) -> Self {
        let [batch, seq, width] = qkv.shape().dims();
        assert!(
            width.is_multiple_of(heads.packed()),
            "attention: a packed row of {width} does not divide into {heads:?}"
        );
        check(qkv, qkv.shape().num_elements(), batch, heads);
        let head_dim = width / heads.packed();
        Self {
            heads,
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
    pub fn cached(queries: &CubeTensor, keys: &CubeTensor, length: usize, heads: Heads) -> Self {
        let [batch, seq, width] = queries.shape().dims();
        let [_, _, capacity, head_dim] = keys.shape().dims();
        assert!(seq <= length && length <= capacity, "attention: {seq} of {length} positions in a cache of {capacity}");
        check(queries, keys.shape().num_elements(), batch, heads);
        Self {
            heads,
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

    pub fn launch(&self) -> PlacesLaunch {
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

    /// Tiles of `rows` positions of the query heads that share a key-value head, and all such heads.
    pub fn row_tiles(&self, rows: usize) -> [usize; 2] {
        [(self.seq * self.heads.group()).div_ceil(rows), self.batch * self.heads.key_value]
    }

    /// A cube for each of [`Self::row_tiles`].
    pub fn row_cubes(&self, rows: usize) -> CubeCount {
        let [tiles, heads] = self.row_tiles(rows);
        CubeCount::new_2d(tiles as u32, heads as u32)
    }

    /// Tiles of `keys` positions of a key-value head, and all such heads.
    pub fn key_tiles(&self, keys: usize) -> [usize; 2] {
        [self.seq.div_ceil(keys), self.batch * self.heads.key_value]
    }

    /// `splits` cubes for each of [`Self::key_tiles`].
    pub fn key_cubes(&self, keys: usize, splits: usize) -> CubeCount {
        let [tiles, heads] = self.key_tiles(keys);
        CubeCount::new_3d(tiles as u32, heads as u32, splits as u32)
    }

    /// Heads and their width.
    pub fn sizes(&self) -> Sizes {
        Sizes { query: self.heads.query, key_value: self.heads.key_value, head_dim: self.head_dim }
    }

    /// What scores are multiplied by.
    pub fn scale(&self) -> f64 {
        1.0 / (self.head_dim as f64).sqrt()
    }
}

/// Stops what the kernels cannot count.
fn check(like: &CubeTensor, elements: usize, batch: usize, heads: Heads) {
    let (_, most, _) = like.client.properties().hardware.max_cube_count;
    assert!(
        batch * heads.query <= most as usize && u32::try_from(elements).is_ok(),
        "attention: {batch} sequences of {} heads, {elements} elements, are more than one launch takes; smaller batches fit",
        heads.query
    );
}
