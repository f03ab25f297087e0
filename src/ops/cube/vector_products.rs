//! Products on matrix units of what units have in vectors of 16 bytes: a vector of a row is a unit's elements of two products, since which
//! elements come first does not matter to a sum.

use cubecl::cmma::MmaDefinition;
use cubecl::prelude::*;

/// Sums of two products, those of rows `g` and `g + 8` of each. Each product has its own, so that they need not wait for each other.
#[cube]
pub(crate) fn zero_sums<P: Size>() -> Array<Vector<f32, P>> {
    let mut sums = Array::<Vector<f32, P>>::new(4usize);
    #[unroll]
    for i in 0..4usize {
        sums[i] = Vector::new(0.0);
    }
    sums
}

/// Adds two products of 16 rows with 8 columns, 16 elements deep each: `low` and `high` are of rows `g` and `g + 8` of the left
/// factors, `right` is of column `g` of the right ones.
#[cube]
pub(crate) fn add_products<F: Float, N: Size, P: Size>(
    product: MmaDefinition<F, F, f32>,
    low: Vector<F, N>,
    high: Vector<F, N>,
    right: Vector<F, N>,
    sums: &mut Array<Vector<f32, P>>,
) {
    #[unroll]
    for half in 0..2usize {
        let mut a = Array::<Vector<F, P>>::new(4usize);
        let mut b = Array::<Vector<F, P>>::new(2usize);
        #[unroll]
        for pair in 0..2usize {
            let from = comptime!(2 * half + pair);
            a[2 * pair] = pair_of::<F, N, P>(low, from);
            a[2 * pair + 1] = pair_of::<F, N, P>(high, from);
            b[pair] = pair_of::<F, N, P>(right, from);
        }
        add_product::<F, P>(product, &a, &b, sums, comptime!(2 * half));
    }
}

/// Adds a product to sums `at` and `at + 1`, those of rows `g` and `g + 8`.
#[cube]
pub(crate) fn add_product<F: Float, P: Size>(
    product: MmaDefinition<F, F, f32>,
    a: &Array<Vector<F, P>>,
    b: &Array<Vector<F, P>>,
    sums: &mut Array<Vector<f32, P>>,
    #[comptime] at: usize,
) {
    let mut before = Array::<Vector<f32, P>>::new(2usize);
    before[0] = sums[at];
    before[1] = sums[at + 1];
    let after = product.execute(a, b, &before);
    sums[at] = after[0];
    sums[at + 1] = after[1];
}

/// Elements `2 at` and `2 at + 1` of a vector.
#[cube]
fn pair_of<F: Float, N: Size, P: Size>(vector: Vector<F, N>, #[comptime] at: usize) -> Vector<F, P> {
    let mut pair = Vector::<F, P>::new(F::new(0.0));
    pair.insert(0usize, vector.extract(comptime!(2 * at)));
    pair.insert(1usize, vector.extract(comptime!(2 * at + 1)));
    pair
}
