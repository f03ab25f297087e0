use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::DType;
use rayon::prelude::*;

use super::{AttentionOps, CachedAttentionOps, Heads, generic};
use crate::ops::flex::{
    Matrix, MatrixMut, Real, Shared, contiguous, lane_dot, multiply, new_tensor, simd, slice, softmax,
};

/// Query rows whose scores are held at once: large enough for fast products, small enough that little of the masked
/// half is computed and that scores of a few thousand keys stay in cache.
const BLOCK: usize = 64;

/// Elements of one head's keys below which a single query is not worth several threads.
const SHORT: usize = 1 << 12;

impl AttentionOps for Flex {
    fn packed_attention(qkv: FloatTensor<Self>, heads: Heads) -> FloatTensor<Self> {
        match qkv.dtype() {
            DType::F32 => forward::<f32>(qkv, heads),
            DType::F64 => forward::<f64>(qkv, heads),
            _ => generic::forward::<Self>(qkv, heads),
        }
    }

    fn packed_attention_backward(
        qkv: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        heads: Heads,
    ) -> FloatTensor<Self> {
        match qkv.dtype() {
            DType::F32 => backward::<f32>(qkv, gradient, heads),
            DType::F64 => backward::<f64>(qkv, gradient, heads),
            _ => generic::backward::<Self>(qkv, gradient, heads),
        }
    }
}

impl CachedAttentionOps for Flex {
    fn cached_attention(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        length: usize,
        heads: Heads,
    ) -> FloatTensor<Self> {
        match queries.dtype() {
            DType::F32 => cached::<f32>(queries, keys, values, length, heads),
            DType::F64 => cached::<f64>(queries, keys, values, length, heads),
            _ => generic::cached::<Self>(queries, keys, values, length, heads),
        }
    }
}

fn score_scale<T: Real>(head_dim: usize) -> T {
    T::of(1.0 / (head_dim as f64).sqrt())
}

/// `scores [rows, keys]` = softmax of `q k^T`, row `i` over its first `visible(i)` keys, zero behind.
fn probabilities<T: Real>(scores: &mut [T], q: Matrix<T>, k: Matrix<T>, visible: impl Fn(usize) -> usize) {
    let keys = k.rows;
    let scale = score_scale(q.columns);
    multiply(&mut MatrixMut::new(scores, q.rows, keys, keys), false, scale, q, k.transposed());
    simd(|| {
        for (row, scores) in scores.chunks_exact_mut(keys).enumerate() {
            let (seen, hidden) = scores.split_at_mut(visible(row));
            softmax(seen);
            hidden.fill(T::zero());
        }
    });
}

/// Where the heads of a packed row begin, and how far apart rows are.
#[derive(Clone, Copy)]
struct Packed {
    heads: Heads,
    head_dim: usize,
    batch: usize,
    seq: usize,
}

impl Packed {
    fn of(qkv: &FloatTensor<Flex>, heads: Heads) -> Self {
        let [batch, seq, width] = qkv.shape().dims();
        assert!(
            width.is_multiple_of(heads.packed()),
            "attention: a packed row of {width} does not divide into {heads:?}"
        );
        Self { heads, head_dim: width / heads.packed(), batch, seq }
    }

    fn width(self) -> usize {
        self.heads.packed() * self.head_dim
    }

    /// Offset of packed head `head` in row `row` of sequence `batch`.
    fn offset(self, batch: usize, row: usize, head: usize) -> usize {
        (batch * self.seq + row) * self.width() + head * self.head_dim
    }

    fn key(self, query_head: usize) -> usize {
        self.heads.query + query_head / self.heads.group()
    }

    fn value(self, query_head: usize) -> usize {
        self.key(query_head) + self.heads.key_value
    }

    /// `rows` rows of one packed head, from `first`.
    fn head<T>(self, data: &[T], batch: usize, first: usize, rows: usize, head: usize) -> Matrix<'_, T> {
        Matrix::new(&data[self.offset(batch, first, head)..], rows, self.head_dim, self.width())
    }

    /// The blocks of query rows, as first row and count.
    fn blocks(self) -> impl Iterator<Item = (usize, usize)> + Clone {
        let seq = self.seq;
        (0..seq).step_by(BLOCK).map(move |first| (first, BLOCK.min(seq - first)))
    }
}

fn forward<T: Real>(qkv: FloatTensor<Flex>, heads: Heads) -> FloatTensor<Flex> {
    let qkv = contiguous(qkv);
    let at = Packed::of(&qkv, heads);
    let data: &[T] = slice(&qkv);
    let out_width = heads.query * at.head_dim;
    let mut out = vec![T::zero(); at.batch * at.seq * out_width];
    let shared = Shared::new(&mut out);
    // Late blocks see more keys: start with them, so that no thread is left with a long one at the end.
    let mut tasks: Vec<_> = (0..at.batch)
        .flat_map(|batch| (0..heads.query).flat_map(move |head| at.blocks().map(move |block| (block, batch, head))))
        .collect();
    tasks.sort_by(|a, b| b.cmp(a));
    tasks.into_par_iter().with_max_len(1).for_each_init(Vec::new, |scores, ((first, rows), batch, head)| {
        let keys = first + rows;
        scores.resize(rows * keys, T::zero());
        let q = at.head(data, batch, first, rows, head);
        probabilities(scores, q, at.head(data, batch, 0, keys, at.key(head)), |row| first + row + 1);
        // SAFETY: each task writes the rows and the head that are its own.
        let mut out = unsafe {
            shared.matrix((batch * at.seq + first) * out_width + head * at.head_dim, rows, at.head_dim, out_width)
        };
        let value = at.head(data, batch, 0, keys, at.value(head));
        multiply(&mut out, false, T::one(), Matrix::new(scores, rows, keys, keys), value);
    });
    new_tensor(out, [at.batch, at.seq, out_width])
}

/// Parallel over sequences and key-value heads, so that the gradients of a key-value head have one writer.
fn backward<T: Real>(qkv: FloatTensor<Flex>, gradient: FloatTensor<Flex>, heads: Heads) -> FloatTensor<Flex> {
    let (qkv, gradient) = (contiguous(qkv), contiguous(gradient));
    let at = Packed::of(&qkv, heads);
    let (data, d_out): (&[T], &[T]) = (slice(&qkv), slice(&gradient));
    let mut d_qkv = vec![T::zero(); data.len()];
    let shared = Shared::new(&mut d_qkv);
    let tasks: Vec<_> = (0..at.batch).flat_map(|b| (0..heads.key_value).map(move |kv| (b, kv))).collect();
    tasks.into_par_iter().for_each_init(<(Vec<T>, Vec<T>)>::default, |(p, d_s), (batch, key_value)| {
        for head in key_value * heads.group()..(key_value + 1) * heads.group() {
            for (first, rows) in at.blocks() {
                backward_block(&shared, at, data, d_out, (p, d_s), batch, head, first..first + rows);
            }
        }
    });
    new_tensor(d_qkv, qkv.shape())
}

/// What one block of query rows adds to the gradients.
#[expect(clippy::too_many_arguments, reason = "the block's place in the tensors; a struct would be used once")]
fn backward_block<T: Real>(
    d_qkv: &Shared<T>,
    at: Packed,
    data: &[T],
    d_out: &[T],
    (p, d_s): (&mut Vec<T>, &mut Vec<T>),
    batch: usize,
    head: usize,
    block: std::ops::Range<usize>,
) {
    let (first, rows, keys) = (block.start, block.len(), block.end);
    let out_width = at.heads.query * at.head_dim;
    let q = at.head(data, batch, first, rows, head);
    let k = at.head(data, batch, 0, keys, at.key(head));
    let v = at.head(data, batch, 0, keys, at.value(head));
    let d_out = &d_out[(batch * at.seq + first) * out_width + head * at.head_dim..];
    let d_out = Matrix::new(d_out, rows, at.head_dim, out_width);

    p.resize(rows * keys, T::zero());
    probabilities(p, q, k, |row| first + row + 1);
    d_s.resize(rows * keys, T::zero());
    multiply(&mut MatrixMut::new(d_s, rows, keys, keys), false, T::one(), d_out, v.transposed());
    let scale = score_scale::<T>(at.head_dim);
    simd(|| {
        for (p, d_s) in p.chunks_exact(keys).zip(d_s.chunks_exact_mut(keys)) {
            let mean = lane_dot(p, d_s);
            for (d_s, p) in d_s.iter_mut().zip(p) {
                *d_s = *p * (*d_s - mean) * scale;
            }
        }
    });
    let (p, d_s) = (Matrix::new(p, rows, keys, keys), Matrix::new(d_s, rows, keys, keys));
    // SAFETY: a task owns its query heads and their key-value head; these three lie apart.
    let target =
        |first, rows, head| unsafe { d_qkv.matrix(at.offset(batch, first, head), rows, at.head_dim, at.width()) };
    multiply(&mut target(first, rows, head), false, T::one(), d_s, k);
    multiply(&mut target(0, keys, at.key(head)), true, T::one(), d_s.transposed(), q);
    multiply(&mut target(0, keys, at.value(head)), true, T::one(), p.transposed(), d_out);
}

fn cached<T: Real>(
    queries: FloatTensor<Flex>,
    keys: FloatTensor<Flex>,
    values: FloatTensor<Flex>,
    length: usize,
    heads: Heads,
) -> FloatTensor<Flex> {
    let (queries, keys, values) = (contiguous(queries), contiguous(keys), contiguous(values));
    let [batch, seq, width] = queries.shape().dims();
    let [_, key_value, capacity, head_dim] = keys.shape().dims();
    assert!(seq <= length && length <= capacity, "attention: {seq} of {length} positions in a cache of {capacity}");
    let (q, k, v): (&[T], &[T], &[T]) = (slice(&queries), slice(&keys), slice(&values));
    let out_width = heads.query * head_dim;
    let mut out = vec![T::zero(); batch * seq * out_width];
    let shared = Shared::new(&mut out);
    let past = length - seq;
    let cache = |data, batch, head, rows| {
        Matrix::new(data_from(data, (batch * key_value + head) * capacity * head_dim), rows, head_dim, head_dim)
    };
    // A block is either rows of one head, or, for a single position, the heads that share keys.
    let task = |scores: &mut Vec<T>, (batch, key_value, head, first, rows): (usize, usize, usize, usize, usize)| {
        let (stride, out_stride, block, seen) = match seq {
            1 => (head_dim, head_dim, heads.group(), length),
            _ => (width, out_width, rows, past + first + rows),
        };
        scores.resize(block * seen, T::zero());
        let q = Matrix::new(&q[(batch * seq + first) * width + head * head_dim..], block, head_dim, stride);
        let visible = |row| if seq == 1 { seen } else { past + first + row + 1 };
        probabilities(scores, q, cache(k, batch, key_value, seen), visible);
        let start = (batch * seq + first) * out_width + head * head_dim;
        // SAFETY: each task writes the rows and heads that are its own.
        let mut out = unsafe { shared.matrix(start, block, head_dim, out_stride) };
        let p = Matrix::new(scores, block, seen, seen);
        multiply(&mut out, false, T::one(), p, cache(v, batch, key_value, seen));
    };
    let group = heads.group();
    if seq == 1 {
        let tasks = (0..batch * key_value).map(|index| (index / key_value, index % key_value));
        let tasks: Vec<_> = tasks.map(|(b, kv)| (b, kv, kv * group, 0, 1)).collect();
        if length * head_dim < SHORT {
            let mut scores = Vec::new();
            for at in tasks {
                task(&mut scores, at);
            }
        } else {
            tasks.into_par_iter().with_max_len(1).for_each_init(Vec::new, task);
        }
    } else {
        let tasks: Vec<_> = (0..batch)
            .flat_map(|b| (0..heads.query).map(move |head| (b, head)))
            .flat_map(|(b, head)| {
                (0..seq).step_by(BLOCK).map(move |first| (b, head / group, head, first, BLOCK.min(seq - first)))
            })
            .collect();
        tasks.into_par_iter().for_each_init(Vec::new, task);
    }
    new_tensor(out, [batch, seq, out_width])
}

fn data_from<T>(data: &[T], offset: usize) -> &[T] {
    &data[offset..]
}
