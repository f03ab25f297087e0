//! PyTorch's own fused attention.

use burn::backend::LibTorch;
use burn::backend::tensor::FloatTensor;
use tch::{Device, Kind, Tensor};

use super::{AttentionOps, CachedAttentionOps, Heads, generic};

impl AttentionOps for LibTorch {
    fn packed_attention(qkv: FloatTensor<Self>, heads: Heads) -> FloatTensor<Self> {
        let (q, kv) = (heads.query as i64, heads.key_value as i64);
        let packed = by_head(&qkv.tensor, heads.packed() as i64);
        let (q, k, v) = (packed.narrow(1, 0, q), packed.narrow(1, q, kv), packed.narrow(1, q + kv, kv));
        joined(&attend(&q, &k, &v))
    }

    /// On a processor PyTorch's kernel is called by name, for its backward wants the logarithms of the rows' sums.
    fn packed_attention_saving(qkv: FloatTensor<Self>, heads: Heads) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if qkv.tensor.device() != Device::Cpu {
            let nothing = FloatTensor::<Self>::new(Tensor::zeros([0], (qkv.tensor.kind(), qkv.tensor.device())));
            return (Self::packed_attention(qkv, heads), nothing);
        }
        let (q, k, v) = repeated(&qkv.tensor, heads);
        let (out, sums) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu(
            &q,
            &k,
            &v,
            0.0,
            true,
            None::<Tensor>,
            None::<f64>,
        );
        (joined(&out), FloatTensor::<Self>::new(sums))
    }

    fn packed_attention_backward(
        qkv: FloatTensor<Self>,
        out: FloatTensor<Self>,
        saved: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        heads: Heads,
    ) -> FloatTensor<Self> {
        if qkv.tensor.device() != Device::Cpu {
            return generic::backward::<Self>(qkv, gradient, heads);
        }
        let (q, k, v) = repeated(&qkv.tensor, heads);
        let query = heads.query as i64;
        let (d_q, d_k, d_v) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu_backward(
            &by_head(&gradient.tensor, query),
            &q,
            &k,
            &v,
            &by_head(&out.tensor, query),
            &saved.tensor,
            0.0,
            true,
            None::<Tensor>,
            None::<f64>,
        );
        let (key_value, group) = (heads.key_value as i64, heads.group() as i64);
        let summed = |d: Tensor| {
            let [batch, _, seq, head_dim] = sizes(&d);
            d.reshape([batch, key_value, group, seq, head_dim]).sum_dim_intlist([2_i64].as_slice(), false, d.kind())
        };
        joined(&Tensor::cat(&[d_q, summed(d_k), summed(d_v)], 1))
    }
}

/// Queries, and keys and values repeated for each query head, `[batch, query, seq, head_dim]` each.
fn repeated(qkv: &Tensor, heads: Heads) -> (Tensor, Tensor, Tensor) {
    let (q, kv, group) = (heads.query as i64, heads.key_value as i64, heads.group() as i64);
    let packed = by_head(qkv, heads.packed() as i64);
    let part = |first| packed.narrow(1, first, kv).repeat_interleave_self_int(group, 1, None::<i64>);
    (packed.narrow(1, 0, q), part(q), part(q + kv))
}

fn sizes(x: &Tensor) -> [i64; 4] {
    x.size().try_into().expect("four dimensions")
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
