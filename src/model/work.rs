//! Floating-point operations and bytes that the decoder's workloads need, whatever a variant does.
//!
//! Operations are *model FLOPs* (Chowdhery et al. 2022, "`PaLM`", arXiv:2204.02311, appendix B): multiplications and
//! additions of matrix products alone, causal attention counted over the keys it sees, nothing computed again. Bytes are the
//! least traffic with memory: what has to be there before or after a step is moved once, activations in between not at all.

use crate::spec::{ModelConfig, Optimizer, Precision, Work};

/// Bytes of an element of weights and activations in products.
fn element(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 4,
        Precision::F64 => 8,
        Precision::Bf16 | Precision::Mixed => 2,
    }
}

/// Bytes of an element of trained weights and their gradients.
fn master(precision: Precision) -> usize {
    match precision {
        Precision::Mixed => 4,
        other => element(other),
    }
}

/// Elements of the layers' matrices: queries, keys, values, output, gate, up and down.
fn layer_matrices(model: &ModelConfig) -> usize {
    let attention = 2 * model.hidden_size * (model.hidden_size + model.kv_size());
    model.num_hidden_layers * (attention + 3 * model.hidden_size * model.intermediate_size)
}

/// Elements of all weights that a step reads whole: all but the embedding, of which it reads a row a token.
fn read_whole(model: &ModelConfig) -> usize {
    model.parameter_count() - model.vocab_size * model.hidden_size
}

fn work(flops: usize, bytes: usize) -> Work {
    Work { flops: flops as u64, bytes: bytes as u64 }
}

/// Inference on `[batch, seq]` ids, logits of every position. With M elements of the layers' matrices, L layers, width h,
/// vocabulary V, P weights, e bytes an element:
/// `B (2 S (M + hV) + 2 L h S (S + 1))` operations, `e (P - Vh + BSh + BSV)` bytes.
#[must_use]
pub fn inference(model: &ModelConfig, batch: usize, seq: usize, precision: Precision) -> Work {
    let (hidden, vocabulary, layers) = (model.hidden_size, model.vocab_size, model.num_hidden_layers);
    let products = 2 * seq * (layer_matrices(model) + hidden * vocabulary);
    let attention = 2 * layers * hidden * seq * (seq + 1);
    let elements = read_whole(model) + batch * seq * (hidden + vocabulary);
    work(batch * (products + attention), elements * element(precision))
}

/// A training step on `[batch, seq]` ids: three times the operations of [`inference`], a product having two gradients of its
/// size. Bytes: weights once forward and once backward, `2 e (P - Vh + BSh)`, gradients of all P weights out in m bytes each;
/// the loss needs no logits in memory. AdamW reads weight, gradient and two moments, and writes all but the gradient:
/// `7 m P` more; its operations are not counted.
#[must_use]
pub fn training(model: &ModelConfig, batch: usize, seq: usize, precision: Precision, optimizer: Optimizer) -> Work {
    let read = 2 * (read_whole(model) + batch * seq * model.hidden_size) * element(precision);
    let passes = match optimizer {
        Optimizer::None => 1,
        Optimizer::Adamw => 8,
    };
    let written = passes * model.parameter_count() * master(precision);
    work(3 * inference(model, batch, seq, precision).flops as usize, read + written)
}

/// Prefill of `[batch, prompt]` ids, logits of the last position alone:
/// `B (2 S M + 2 hV + 2 L h S (S + 1))` operations; weights, embedding rows, the cache written and the logits:
/// `e (P - Vh + B (S h + 2 L S h_kv + V))` bytes.
#[must_use]
pub fn prefill(model: &ModelConfig, batch: usize, prompt: usize, precision: Precision) -> Work {
    let (hidden, vocabulary, layers) = (model.hidden_size, model.vocab_size, model.num_hidden_layers);
    let products = 2 * prompt * layer_matrices(model) + 2 * hidden * vocabulary;
    let attention = 2 * layers * hidden * prompt * (prompt + 1);
    let cache = 2 * layers * prompt * model.kv_size();
    let elements = read_whole(model) + batch * (prompt * hidden + cache + vocabulary);
    work(batch * (products + attention), elements * element(precision))
}

/// One token a sequence at `position`, so many tokens being in the cache:
/// `B (2 (M + hV) + 4 L h (position + 1))` operations; weights, embedding row, cache read and its new entry written, logits:
/// `e (P - Vh + B (h + 2 L h_kv (position + 1) + V))` bytes.
#[must_use]
pub fn decode(model: &ModelConfig, batch: usize, position: usize, precision: Precision) -> Work {
    let (hidden, vocabulary, layers) = (model.hidden_size, model.vocab_size, model.num_hidden_layers);
    let products = 2 * (layer_matrices(model) + hidden * vocabulary);
    let attention = 4 * layers * hidden * (position + 1);
    let cache = 2 * layers * model.kv_size() * (position + 1);
    let elements = read_whole(model) + batch * (hidden + cache + vocabulary);
    work(batch * (products + attention), elements * element(precision))
}

/// The mean of [`decode`] over a generation of `new_tokens`, the first of which the prefill makes: positions `prompt` to
/// `prompt + new_tokens - 2`. `None` if there is no such position.
#[must_use]
pub fn mean_decode(
    model: &ModelConfig,
    batch: usize,
    prompt: usize,
    new_tokens: usize,
    precision: Precision,
) -> Option<Work> {
    let steps = new_tokens.checked_sub(1).filter(|steps| *steps > 0)?;
    let ends = [prompt, prompt + steps - 1].map(|position| decode(model, batch, position, precision));
    // Both grow linearly with the position.
    Some(Work { flops: ends[0].flops.midpoint(ends[1].flops), bytes: ends[0].bytes.midpoint(ends[1].bytes) })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn tiny() -> ModelConfig {
        ModelConfig {
            vocab_size: 11,
            hidden_size: 8,
            intermediate_size: 6,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            ..ModelConfig::default()
        }
    }

    /// Walks a decoder element by element, counts what it multiplies and adds, and remembers which element of memory it
    /// touches.
    #[derive(Default)]
    struct Walk {
        flops: u64,
        touched: HashSet<(String, usize, usize)>,
    }

    impl Walk {
        fn touch(&mut self, what: &str, row: usize, column: usize) {
            self.touched.insert((what.to_owned(), row, column));
        }

        /// One row through a matrix; with gradients also those of the row and of the matrix.
        fn linear(&mut self, name: &str, input: usize, output: usize, gradients: bool) {
            for i in 0..input {
                for o in 0..output {
                    self.touch(name, i, o);
                    self.flops += 2;
                    if gradients {
                        self.flops += 2 + 2;
                    }
                }
            }
        }

        fn norm(&mut self, name: &str, width: usize) {
            (0..width).for_each(|column| self.touch(name, 0, column));
        }

        /// One token of one sequence through all layers; `attended` keys before it.
        fn token(&mut self, model: &ModelConfig, sequence: usize, row: usize, position: usize, gradients: bool) {
            let (hidden, mlp, kv, wide) =
                (model.hidden_size, model.intermediate_size, model.kv_size(), model.head_dim());
            (0..hidden).for_each(|column| self.touch(&format!("embedding of {sequence}"), row, column));
            for layer in 0..model.num_hidden_layers {
                let named = |what: &str| format!("{what} {layer}");
                self.norm(&named("attention norm"), hidden);
                self.linear(&named("q"), hidden, hidden, gradients);
                self.linear(&named("k"), hidden, kv, gradients);
                self.linear(&named("v"), hidden, kv, gradients);
                for _head in 0..model.num_attention_heads {
                    for _key in 0..=position {
                        for _element in 0..wide {
                            self.flops += 2; // score
                            self.flops += 2; // weighted value
                            if gradients {
                                self.flops += 2 + 2; // of query and key
                                self.flops += 2 + 2; // of probability and value
                            }
                        }
                    }
                }
                for key in 0..=position {
                    for column in 0..kv {
                        self.touch(&named(&format!("cached keys of {sequence} in")), key, column);
                        self.touch(&named(&format!("cached values of {sequence} in")), key, column);
                    }
                }
                self.linear(&named("o"), hidden, hidden, gradients);
                self.norm(&named("mlp norm"), hidden);
                self.linear(&named("gate"), hidden, mlp, gradients);
                self.linear(&named("up"), hidden, mlp, gradients);
                self.linear(&named("down"), mlp, hidden, gradients);
            }
        }

        fn logits(&mut self, model: &ModelConfig, sequence: usize, position: usize, gradients: bool) {
            self.norm("final norm", model.hidden_size);
            self.linear("head", model.hidden_size, model.vocab_size, gradients);
            (0..model.vocab_size).for_each(|id| self.touch(&format!("logits of {sequence}"), position, id));
        }

        fn elements(&self, counts: impl Fn(&str) -> bool) -> u64 {
            self.touched.iter().filter(|(what, ..)| counts(what)).count() as u64
        }
    }

    const BATCH: usize = 3;
    const SEQ: usize = 5;

    fn walked(gradients: bool, only_last: bool) -> Walk {
        let (model, mut walk) = (tiny(), Walk::default());
        for sequence in 0..BATCH {
            for position in 0..SEQ {
                walk.token(&model, sequence, position, position, gradients);
                if !only_last || position == SEQ - 1 {
                    walk.logits(&model, sequence, position, gradients);
                }
            }
        }
        walk
    }

    #[test]
    fn inference_is_what_a_walk_counts() {
        let walk = walked(false, false);
        let elements = walk.elements(|what| !what.starts_with("cached"));
        let work = inference(&tiny(), BATCH, SEQ, Precision::F32);
        assert_eq!((work.flops, work.bytes), (walk.flops, 4 * elements));
    }

    #[test]
    fn training_is_what_a_walk_counts() {
        let walk = walked(true, false);
        let read = walk.elements(|what| !what.starts_with("cached") && !what.starts_with("logits"));
        let weights = walk
            .elements(|what| ["cached", "logits", "embedding"].iter().all(|other| !what.starts_with(other)))
            + (tiny().vocab_size * tiny().hidden_size) as u64;
        let of = |precision, optimizer| training(&tiny(), BATCH, SEQ, precision, optimizer);
        let plain = of(Precision::F32, Optimizer::None);
        assert_eq!((plain.flops, plain.bytes), (walk.flops, 4 * (2 * read + weights)));
        assert_eq!(of(Precision::Mixed, Optimizer::None).bytes, 2 * 2 * read + 4 * weights);
        assert_eq!(of(Precision::F32, Optimizer::Adamw).bytes - plain.bytes, 4 * 7 * weights);
    }

    #[test]
    fn prefill_is_what_a_walk_counts() {
        let walk = walked(false, true);
        let work = prefill(&tiny(), BATCH, SEQ, Precision::Bf16);
        assert_eq!((work.flops, work.bytes), (walk.flops, 2 * walk.elements(|_| true)));
    }

    #[test]
    fn decode_is_what_a_walk_counts() {
        let (mut flops, mut bytes) = (0, 0);
        for position in SEQ..SEQ + 3 {
            let mut walk = Walk::default();
            for sequence in 0..BATCH {
                walk.token(&tiny(), sequence, 0, position, false);
                walk.logits(&tiny(), sequence, position, false);
            }
            let work = decode(&tiny(), BATCH, position, Precision::F64);
            assert_eq!((work.flops, work.bytes), (walk.flops, 8 * walk.elements(|_| true)));
            (flops, bytes) = (flops + work.flops, bytes + work.bytes);
        }
        let mean = mean_decode(&tiny(), BATCH, SEQ, 4, Precision::F64).expect("three positions");
        assert_eq!((3 * mean.flops, 3 * mean.bytes), (flops, bytes));
        assert_eq!(mean_decode(&tiny(), BATCH, SEQ, 1, Precision::F64), None, "the prefill makes the only token");
    }
}
