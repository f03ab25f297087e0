use std::marker::PhantomData;

use rayon::prelude::*;

use super::{Real, simd};

/// A read-only strided matrix; strides count elements.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    pub rows: usize,
    pub columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Rows of `columns` neighbouring elements, `row_stride` apart, from the start of `data`.
    pub fn new(data: &'a [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(
            rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= data.len(),
            "matrix exceeds its data"
        );
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// A strided matrix to write: rows of neighbouring elements.
pub(crate) struct MatrixMut<'a, T> {
    data: *mut T,
    rows: usize,
    columns: usize,
    row_stride: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

impl<'a, T> MatrixMut<'a, T> {
    pub fn new(data: &'a mut [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        // SAFETY: the slice is borrowed mutably for as long as the matrix lives.
        unsafe { Shared::new(data).matrix(0, rows, columns, row_stride) }
    }
}

/// Elements that several threads write, each through matrices of its own.
pub(crate) struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: `Shared::matrix` is unsafe to call and its callers promise that no two matrices overlap.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(data: &'a mut [T]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), lifetime: PhantomData }
    }

    /// The matrix of `rows` rows of `columns` elements, `row_stride` apart, that begins at element `offset`.
    ///
    /// # Safety
    /// No element of it may be accessed in any other way while it lives.
    pub unsafe fn matrix(&self, offset: usize, rows: usize, columns: usize, row_stride: usize) -> MatrixMut<'a, T> {
        let end = if rows == 0 || columns == 0 { offset } else { offset + (rows - 1) * row_stride + columns };
        assert!(end <= self.len, "matrix exceeds its data");
        // SAFETY: the assertion keeps the start within the slice.
        MatrixMut { data: unsafe { self.data.add(offset) }, rows, columns, row_stride, lifetime: PhantomData }
    }

    fn start(&self) -> *mut T {
        self.data
    }
}

/// `to = scale * a b`, or `to += scale * a b`, on this thread.
pub(crate) fn multiply<T: Real>(to: &mut MatrixMut<T>, add: bool, scale: T, a: Matrix<T>, b: Matrix<T>) {
    check(to, a, b);
    // SAFETY: `check` holds the shapes together and the constructors hold them within their slices.
    unsafe { columns(to.data, to.row_stride, 0..b.columns, add, scale, a, b) }
}

/// As [`multiply`], its columns shared between the threads.
///
/// Each task packs its own part of `b` and none waits for another, which on few cores beats the matrix library's own
/// splitting: 420 against 250 GFLOP/s for 128 x 512 by 512 x 2752 on two cores.
pub(crate) fn multiply_parallel<T: Real>(to: &mut MatrixMut<T>, add: bool, scale: T, a: Matrix<T>, b: Matrix<T>) {
    const SMALLEST_SHARE: usize = 1 << 19; // multiply-adds, about 5 us
    const FEW_ROWS: usize = 8;
    check(to, a, b);
    let shares = (a.rows * a.columns * b.columns / SMALLEST_SHARE).min(2 * rayon::current_num_threads()).max(1);
    let width = b.columns.div_ceil(shares).next_multiple_of(16);
    let target = Shared { data: to.data, len: 0, lifetime: PhantomData };
    let row_stride = to.row_stride;
    let share = |index: usize| {
        let first = index * width;
        let last = (first + width).min(b.columns);
        // A ragged end has the library pack all of the share, which costs more than a product of few rows.
        let even = if a.rows <= FEW_ROWS { last - last % 64 } else { last };
        for part in [first..even.max(first), even.max(first)..last] {
            if !part.is_empty() {
                // SAFETY: as in `multiply`; the parts' columns do not overlap.
                unsafe { columns(target.start(), row_stride, part, add, scale, a, b) }
            }
        }
    };
    match shares {
        1 => share(0),
        _ => (0..shares).into_par_iter().for_each(share),
    }
}

/// Products of a few rows with a matrix: `to [m, n] = a [m, k] b [k, n]`, for `m` so small that reading `b` decides.
///
/// Every thread streams its own run of `b`'s rows once, front to back, and the partial sums are added in a fixed
/// order, so the result does not depend on scheduling.
pub(crate) fn transposed_vector_products<T: Real>(
    to: &mut [T],
    add: bool,
    a: &[T],
    b: &[T],
    m: usize,
    k: usize,
    n: usize,
) {
    const SMALLEST_SHARE: usize = 1 << 16; // elements of b
    assert!(to.len() == m * n && a.len() == m * k && b.len() == k * n, "shapes disagree");
    let shares = (k * n / SMALLEST_SHARE).min(rayon::current_num_threads()).max(1);
    let height = k.div_ceil(shares).next_multiple_of(8);
    if !add {
        to.fill(T::zero());
    }
    if shares == 1 {
        return simd(|| accumulate_rows(to, a, b, m, k, n, 0..k));
    }
    let mut partial = vec![T::zero(); (shares - 1) * m * n];
    let parts: Vec<_> = std::iter::once(&mut *to).chain(partial.chunks_exact_mut(m * n)).enumerate().collect();
    parts.into_par_iter().for_each(|(index, part)| {
        let rows = (index * height).min(k)..((index + 1) * height).min(k);
        simd(|| accumulate_rows(part, a, b, m, k, n, rows));
    });
    for part in partial.chunks_exact(m * n) {
        for (to, part) in to.iter_mut().zip(part) {
            *to = *to + *part;
        }
    }
}

#[inline(always)]
fn accumulate_rows<T: Real>(
    to: &mut [T],
    a: &[T],
    b: &[T],
    m: usize,
    k: usize,
    n: usize,
    rows: std::ops::Range<usize>,
) {
    for row in rows {
        for i in 0..m {
            let factor = a[i * k + row];
            for (to, b) in to[i * n..(i + 1) * n].iter_mut().zip(&b[row * n..(row + 1) * n]) {
                *to = *to + factor * *b;
            }
        }
    }
}

fn check<T>(to: &MatrixMut<T>, a: Matrix<T>, b: Matrix<T>) {
    assert!(a.columns == b.rows && to.rows == a.rows && to.columns == b.columns, "shapes of a product disagree");
}

/// Some columns of a product.
///
/// # Safety
/// `to` must be valid for `a.rows` rows of `b.columns` elements, `row_stride` apart, and no other thread may touch
/// the given columns.
unsafe fn columns<T: Real>(
    to: *mut T,
    row_stride: usize,
    range: std::ops::Range<usize>,
    add: bool,
    scale: T,
    a: Matrix<T>,
    b: Matrix<T>,
) {
    // SAFETY: the caller's promise; offsets stay within the matrices, whose extents their constructors checked.
    unsafe {
        gemm::gemm(
            a.rows,
            range.len(),
            a.columns,
            to.add(range.start),
            1,
            row_stride as isize,
            add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr().add(range.start * b.column_stride),
            b.column_stride as isize,
            b.row_stride as isize,
            T::one(),
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
