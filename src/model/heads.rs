use burn::tensor::Tensor;

use super::shared::{Place, Shared};
use super::{Optimization, plain};
use crate::ops;
use crate::spec::ModelConfig;

/// Query, key and value of every position: side by side in a row, or apart.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "lives for one expression")]
pub(super) enum Qkv {
    /// `[batch, seq, packed * head_dim]`.
    Packed(Tensor<3>),
    /// `[batch, seq, heads * head_dim]` each.
    Apart([Tensor<3>; 3]),
    /// Packed, rows not yet divided by the root mean square of those of the second, `[batch, seq, hidden]`, until they are turned.
    Undivided(Tensor<3>, Tensor<3>),
}

const DIVIDED: &str = "rows are divided where they are turned";

impl Qkv {
    /// From one projection, or from three.
    pub fn of(projected: Vec<Tensor<3>>) -> Self {
        match <[Tensor<3>; 3]>::try_from(projected) {
            Ok(parts) => Self::Apart(parts),
            Err(mut one) => Self::Packed(one.remove(0)),
        }
    }

    pub fn packed(self) -> Tensor<3> {
        match self {
            Self::Packed(qkv) => qkv,
            Self::Apart(parts) => Tensor::cat(parts.to_vec(), 2),
            Self::Undivided(..) => unreachable!("{DIVIDED}"),
        }
    }

    pub fn apart(self, config: &ModelConfig) -> [Tensor<3>; 3] {
        let (hidden, kv) = (config.hidden_size, config.kv_size());
        match self {
            Self::Packed(qkv) => {
                [(0, hidden), (hidden, kv), (hidden + kv, kv)].map(|(first, width)| qkv.clone().narrow(2, first, width))
            }
            Self::Apart(parts) => parts,
            Self::Undivided(..) => unreachable!("{DIVIDED}"),
        }
    }

    /// As many tensors as there are projections: one, or three.
    pub fn split(self, projections: usize, config: &ModelConfig) -> Vec<Tensor<3>> {
        if projections == 1 { vec![self.packed()] } else { self.apart(config).to_vec() }
    }

    /// Queries and keys turned to their positions.
    pub fn turned(self, at: &Place, shared: &Shared) -> Self {
        let turning = shared.heads.query + shared.heads.key_value;
        if let Self::Undivided(qkv, x) = self {
            let eps = shared.config.rms_norm_eps;
            return Self::Packed(ops::folded_norm::rope(qkv, x, eps, &at.tables, turning, at.row));
        }
        if shared.has(Optimization::Rope) {
            return Self::Packed(ops::rope(self.packed(), &at.tables, turning, at.row));
        }
        let (cos, sin) = at.tables.clone().into_parts();
        self.plainly_turned(cos, sin, shared)
    }

    /// Gradients of queries and keys before [`Self::turned`], from those after it.
    pub fn turned_back(self, at: &Place, shared: &Shared) -> Self {
        let heads = shared.heads;
        if shared.has(Optimization::Rope) {
            let turning = heads.query + heads.key_value;
            return Self::Packed(ops::rope::rope_backward(self.packed(), &at.tables, turning, at.row));
        }
        let (cos, sin) = at.tables.clone().into_parts();
        self.plainly_turned(cos, sin.neg(), shared)
    }

    fn plainly_turned(self, cos: Tensor<2>, sin: Tensor<2>, shared: &Shared) -> Self {
        let [q, k, v] = self.apart(&shared.config);
        let turned = |x, heads| plain::rope(x, cos.clone(), sin.clone(), heads);
        Self::Apart([turned(q, shared.heads.query), turned(k, shared.heads.key_value), v])
    }
}

/// `[batch, seq, heads * head_dim]` to `[batch, heads, seq, head_dim]`.
pub(super) fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, seq, width] = x.dims();
    x.reshape([batch, seq, heads, width / heads]).swap_dims(1, 2)
}

/// `[batch, heads, seq, head_dim]` to `[batch, seq, heads * head_dim]`.
pub(super) fn join_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, seq, head_dim] = x.dims();
    x.swap_dims(1, 2).reshape([batch, seq, heads * head_dim])
}
