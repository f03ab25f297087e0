//! PyTorch's own fused attention.

use burn::backend::LibTorch;
use burn::backend::tensor::FloatTensor;
use tch::{Kind, Tensor};

use super::{AttentionOps, CachedAttentionOps, Heads};

impl AttentionOps for LibTorch {
    fn packed_attention(qkv: FloatTensor<Self>, heads: Heads) -> FloatTensor<Self> {
        let (q, kv) = (heads.query as i64, heads.key_value as i64);
        let packed = by_head(&qkv.tensor, heads.packed() as i64);
        let (q, k, v) = (packed.narrow(1, 0, q), packed.narrow(1, q, kv), packed.narrow(1, q + kv, kv));
        joined(&attend(&q, &k, &v))
    }
}

impl CachedAttentionOps for LibTorch {
    fn cached_attention(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        length: usize,
        heads: Heads,
    ) -> FloatTensor<Self> {
        let head_dim = keys.tensor.size()[3];
        let queries = queries.tensor.narrow(2, 0, heads.query as i64 * head_dim);
        let filled = |cache: &Tensor| cache.narrow(2, 0, length as i64);
        let q = by_head(&queries, heads.query as i64);
        joined(&attend(&q, &filled(&keys.tensor), &filled(&values.tensor)))
    }
}

/// `[batch, seq, heads * head_dim]` to `[batch, heads, seq, head_dim]`.
fn by_head(x: &Tensor, heads: i64) -> Tensor {
    let size = x.size();
    x.reshape([size[0], size[1], heads, size[2] / heads]).transpose(1, 2)
}

/// Inverse of [`by_head`].
fn joined(x: &Tensor) -> FloatTensor<LibTorch> {
    let size = x.size();
    FloatTensor::<LibTorch>::new(x.transpose(1, 2).reshape([size[0], size[2], size[1] * size[3]]))
}

/// The queries are the last of the keys' positions. Not Burn's `attention`: burn-tch 0.22.1 hands its mask, true where
/// a key is hidden, to PyTorch, where true means that it is seen.
fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let (seq, keys) = (q.size()[2], k.size()[2]);
    let all_new = seq == keys;
    let seen = (seq > 1 && !all_new).then(|| Tensor::ones([seq, keys], (Kind::Bool, q.device())).tril(keys - seq));
    Tensor::scaled_dot_product_attention(q, k, v, seen, 0.0, all_new, None, true)
}
