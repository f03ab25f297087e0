use burn::tensor::{IndexingUpdateOp, Int, Tensor};

/// Keys and values of one layer, `[batch, kv_heads, positions, head_dim]` each.
#[derive(Debug)]
pub(super) enum LayerCache {
    /// Grows by concatenation.
    Growing(Option<(Tensor<4>, Tensor<4>)>),
    /// Made for a number of positions and written in place; never read behind what was written.
    Preallocated {
        /// Keys.
        keys: Tensor<4>,
        /// Values.
        values: Tensor<4>,
    },
}

impl LayerCache {
    /// Forgets what was written.
    pub(super) fn restart(&mut self) {
        if let Self::Growing(cache) = self {
            *cache = None;
        }
    }

    /// Puts `keys` and `values` of one position at the one whose number is in `position [1]`; returns all slots.
    pub(super) fn put(
        &mut self,
        keys: Tensor<4>,
        values: Tensor<4>,
        position: &Tensor<1, Int>,
    ) -> (Tensor<4>, Tensor<4>) {
        let Self::Preallocated { keys: all_keys, values: all_values } = self else {
            unreachable!("a growing cache is not recorded");
        };
        for (all, new) in [(&mut *all_keys, keys), (&mut *all_values, values)] {
            all.inplace(|all| all.select_assign(2, position.clone(), new, IndexingUpdateOp::Assign));
        }
        (all_keys.clone(), all_values.clone())
    }

    /// Puts `keys` and `values` at positions `first..`; returns the tensors to attend to, whose first
    /// `first + count` positions are filled.
    pub(super) fn append(&mut self, keys: Tensor<4>, values: Tensor<4>, first: usize) -> (Tensor<4>, Tensor<4>) {
        match self {
            Self::Growing(cache) => {
                let (keys, values) = match cache.take() {
                    Some((old_keys, old_values)) => {
                        (Tensor::cat(vec![old_keys, keys], 2), Tensor::cat(vec![old_values, values], 2))
                    }
                    None => (keys, values),
                };
                cache.insert((keys, values)).clone()
            }
            Self::Preallocated { keys: all_keys, values: all_values } => {
                write(all_keys, keys, first);
                write(all_values, values, first);
                (all_keys.clone(), all_values.clone())
            }
        }
    }
}

/// Writes `new` at positions `first..` of `all`, which nobody else may hold: then no copy is made.
fn write(all: &mut Tensor<4>, new: Tensor<4>, first: usize) {
    let [batch, heads, count, head_dim] = new.dims();
    all.inplace(|all| all.slice_assign([0..batch, 0..heads, first..first + count, 0..head_dim], new));
}
