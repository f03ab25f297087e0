use burn::tensor::Tensor;

use super::heads::{Qkv, split_heads};
use super::shared::{First, Place, Shared};
use crate::ops;

/// Keys and values of one layer, `[batch, kv_heads, positions, head_dim]` each.
#[derive(Debug)]
pub(super) enum LayerCache {
    /// Grows by concatenation.
    Growing(Option<(Tensor<4>, Tensor<4>)>),
    /// Made for a number of positions and written in place; never read behind what was written. `None` only while it is
    /// written.
    Preallocated(Option<(Tensor<4>, Tensor<4>)>),
}

impl LayerCache {
    /// Forgets what was written.
    pub(super) fn restart(&mut self) {
        if let Self::Growing(cache) = self {
            *cache = None;
        }
    }

    /// Appends keys and values of positions from `first` on; returns the tensors to attend to, whose first `first + seq`
    /// positions are filled.
    pub(super) fn append(&mut self, qkv: Qkv, first: &First, shared: &Shared) -> (Tensor<4>, Tensor<4>) {
        let heads = shared.heads;
        match (self, first) {
            (Self::Growing(cache), First::Known(_)) => {
                let [_, keys, values] = qkv.apart(&shared.config);
                let (keys, values) = (split_heads(keys, heads.key_value), split_heads(values, heads.key_value));
                let (keys, values) = match cache.take() {
                    Some((old_keys, old_values)) => {
                        (Tensor::cat(vec![old_keys, keys], 2), Tensor::cat(vec![old_values, values], 2))
                    }
                    None => (keys, values),
                };
                cache.insert((keys, values)).clone()
            }
            (Self::Preallocated(cache), first) => {
                let (qkv, all) = (qkv.packed(), cache.take().expect("left there by the last write"));
                let written = match first {
                    First::Known(first) => ops::cache::put(qkv, all, *first, heads),
                    First::InTensor(position) => ops::cache::put_at(qkv, all, position, heads),
                };
                cache.insert(written).clone()
            }
            (Self::Growing(_), First::InTensor(_)) => unreachable!("a growing cache is not recorded"),
        }
    }

    /// Attention of new positions to themselves and those before, `[batch, seq, hidden]`: queries and keys turned, keys and
    /// values appended, in as few launches as there are operations for.
    pub(super) fn attend(&mut self, qkv: Qkv, at: &Place, shared: &Shared) -> Tensor<3> {
        let heads = shared.heads;
        if let (Self::Preallocated(cache), First::InTensor(position), true) =
            (&mut *self, &at.first, shared.turns_into_cache())
        {
            let all = cache.take().expect("left there by the last write");
            let (out, written) = ops::attention::turned_attention_at(qkv.packed(), &at.tables, all, position, heads);
            *cache = Some(written);
            return out;
        }
        let (queries, keys, values) = self.turn_and_append(qkv, at, shared);
        let [_, seq, _] = queries.dims();
        match &at.first {
            First::Known(first) => ops::cached_attention(queries, keys, values, first + seq, heads),
            First::InTensor(position) => ops::attention_at(queries, keys, values, position, heads),
        }
    }

    /// As [`Self::append`], queries and keys turned to their positions before, in one launch where both are ours; the turned
    /// queries `[batch, seq, hidden]`, of which further features are to be ignored, come first.
    fn turn_and_append(&mut self, qkv: Qkv, at: &Place, shared: &Shared) -> (Tensor<3>, Tensor<4>, Tensor<4>) {
        let (Self::Preallocated(cache), First::Known(first), true) = (&mut *self, &at.first, shared.turns_into_cache())
        else {
            let packed = qkv.turned(at, shared).packed();
            let (keys, values) = self.append(Qkv::Packed(packed.clone()), &at.first, shared);
            return (packed, keys, values);
        };
        let all = cache.take().expect("left there by the last write");
        let (queries, written) = match qkv {
            Qkv::Undivided(qkv, x) => {
                let eps = shared.config.rms_norm_eps;
                ops::folded_norm::turn_and_put((qkv, x), eps, &at.tables, all, *first, shared.heads)
            }
            qkv => ops::cache::turn_and_put(qkv.packed(), &at.tables, all, *first, shared.heads),
        };
        let (keys, values) = cache.insert(written).clone();
        (queries, keys, values)
    }
}
