//! What the flex (pure Rust CPU) kernels share: element types, matrix products, threads, tensors as slices.
//!
//! Kernels are plain loops that the compiler vectorises; [`simd`] runs them with the widest instructions the machine
//! has, chosen at run time, so that a portable build is as fast as one made for the machine.

mod element;
mod matrix;
mod tensor;

pub(crate) use element::Real;
pub(crate) use matrix::{Matrix, MatrixMut, Shared, multiply, multiply_parallel, transposed_vector_products};
pub(crate) use tensor::{contiguous, new_tensor, owned_storage, slice};

/// Runs `kernel` with the widest vector instructions of the machine.
///
/// Only code that is inlined into the closure profits: mark helpers `#[inline(always)]`.
pub(crate) fn simd<R>(kernel: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(kernel)
}

/// Work below this many elements is not worth handing to another thread (about 20 us of it).
const ELEMENTS_PER_TASK: usize = 16 * 1024;

/// Rows per parallel task, so that a task has enough elements to be worth a thread.
pub(crate) fn rows_per_task(rows: usize, row_len: usize) -> usize {
    let balanced = rows.div_ceil(4 * rayon::current_num_threads());
    balanced.max(ELEMENTS_PER_TASK.div_ceil(row_len.max(1))).max(1)
}

/// Partial sums a vectorised reduction keeps side by side.
const LANES: usize = 32;

/// Sum of `f` over a slice, in a fixed order that vectorises.
#[inline(always)]
pub(crate) fn lane_sum<T: Real>(values: &[T], f: impl Fn(T) -> T) -> T {
    let mut lanes = [T::zero(); LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: T = chunks.remainder().iter().map(|x| f(*x)).sum();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = *lane + f(*x);
        }
    }
    lanes.iter().copied().sum::<T>() + rest
}

/// Largest value of a slice; not-a-number is skipped here and shows in the sum that follows.
#[inline(always)]
pub(crate) fn lane_max<T: Real>(values: &[T]) -> T {
    let mut lanes = [T::neg_infinity(); LANES];
    let larger = |a: T, b: T| if b > a { b } else { a };
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(T::neg_infinity(), |a, b| larger(a, *b));
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *x);
        }
    }
    lanes.iter().fold(rest, |a, b| larger(a, *b))
}

/// Inner product of two slices of one length, in a fixed order that vectorises.
#[inline(always)]
pub(crate) fn lane_dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut lanes = [T::zero(); LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: T = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| *a * *b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane = *lane + *a * *b;
        }
    }
    lanes.iter().copied().sum::<T>() + rest
}

/// Replaces a row of scores by its softmax.
#[inline(always)]
pub(crate) fn softmax<T: Real>(row: &mut [T]) {
    let max = lane_max(row);
    for x in row.iter_mut() {
        *x = (*x - max).exp_lane();
    }
    let scale = T::one() / lane_sum(row, |x| x);
    for x in row.iter_mut() {
        *x = *x * scale;
    }
}
