//! A matrix product for the sizes of small models on matrix units: `c [m, n] = a [m, k] b [k, n]`, 16-bit factors, sums
//! in 32 bits.
//!
//! Each cube makes a tile of `c`. Tiles are small, so that a small product has a cube for every processor; while one step
//! along `k` is multiplied from a cube's memory, the next is on its way into registers. Either factor may be stored
//! transposed: which way it lies decides how its tile is read, not how it is copied.

#![expect(clippy::range_plus_one, reason = "slices of a cube's memory take half-open ranges")]

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::ir::ElemType;
use cubecl::ir::features::MmaConfig;
use cubecl::prelude::*;

use super::{add_product, element};

/// Rows of a left factor, columns of a right one, and what both share.
const PIECE: [usize; 3] = [16, 8, 16];

/// Units of a plane.
const PLANE: usize = 32;

/// Elements copied at once, 16 bytes.
const WIDE: usize = 8;

/// Elements in a register.
const PAIR: usize = 2;

/// Planes of a cube along `m` and `n`.
const PLANES: [usize; 2] = [2, 2];

/// Units of a cube.
const UNITS: usize = PLANES[0] * PLANES[1] * PLANE;

/// What one cube makes, and how the factors lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tile {
    /// Rows and columns of the tile, and what of `k` is multiplied at a time.
    rows: usize,
    columns: usize,
    depth: usize,
    /// Whether `a` is stored `[k, m]`.
    left_turned: bool,
    /// Whether `b` is stored `[n, k]`.
    right_turned: bool,
}

impl Tile {
    fn of(self, factor: Factor) -> Stored {
        match factor {
            Factor::Left => Stored::new(self.rows, self.depth, self.left_turned),
            Factor::Right => Stored::new(self.columns, self.depth, !self.right_turned),
        }
    }

    /// Left factors of 16 rows a plane has.
    fn lefts(self) -> usize {
        self.rows / PLANES[0] / PIECE[0]
    }

    /// Pairs of right factors of 8 columns a plane has.
    fn pairs(self) -> usize {
        self.columns / PLANES[1] / (2 * PIECE[1])
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Factor {
    Left,
    Right,
}

/// One step of a factor in a cube's memory, as it is stored in the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stored {
    rows: usize,
    /// Vectors of a row.
    vectors: usize,
    /// Whether rows run along `k`.
    along_depth: bool,
}

impl Stored {
    /// Of `wide` rows of `m` or columns of `n`.
    fn new(wide: usize, depth: usize, along_depth: bool) -> Self {
        if along_depth {
            Self { rows: depth, vectors: wide / WIDE, along_depth }
        } else {
            Self { rows: wide, vectors: depth / WIDE, along_depth }
        }
    }

    /// From one row to the next, in vectors: one more than a row has, so that rows begin in different banks.
    fn stride(self) -> usize {
        self.vectors + 1
    }

    fn size(self) -> usize {
        self.rows * self.stride()
    }

    /// Vectors that each unit copies.
    fn each(self) -> usize {
        self.rows * self.vectors / UNITS
    }
}

/// Launches the product with tiles of `rows` x `columns` x `depth`, the first two 64 or 128, the last 32 or 64; `Err` if the
/// factors do not lie so that 16 bytes can be read at once, or the result is too large to be counted.
pub(super) fn launch(
    a: &CubeTensor,
    b: &CubeTensor,
    c: &CubeTensor,
    [rows, columns, depth]: [usize; 3],
) -> Result<(), String> {
    let [m, k] = a.shape().dims();
    let [_, n] = b.shape().dims();
    let ((left_turned, left_row), (right_turned, right_row)) = (lies(a)?, lies(b)?);
    if !n.is_multiple_of(PAIR) || c.meta.strides()[1] != 1 || !c.meta.strides()[0].is_multiple_of(PAIR) {
        return Err("rows of an odd length cannot be written in pairs".to_owned());
    }
    let client = a.client.clone();
    if !multiplies(&client, a.dtype) {
        return Err("the device has no such matrix units".to_owned());
    }
    let tile = Tile { rows, columns, depth, left_turned, right_turned };
    let row_tiles = m.div_ceil(rows);
    let (_, most, _) = client.properties().hardware.max_cube_count;
    if row_tiles > most as usize || u32::try_from(m * c.meta.strides()[0]).is_err() {
        return Err("kernels count cubes and elements in 32 bits at most".to_owned());
    }
    let count = CubeCount::new_2d(n.div_ceil(columns) as u32, row_tiles as u32);
    let sizes = SizesLaunch::new(m, n, k, left_row / WIDE, right_row / WIDE, c.meta.strides()[0]);
    matrix_product::launch(
        &client,
        count,
        CubeDim::new_1d(UNITS as u32),
        WIDE,
        PAIR,
        a.clone().into_buffer_arg(),
        b.clone().into_buffer_arg(),
        c.clone().into_buffer_arg(),
        sizes,
        tile,
        [element(a.dtype), element(c.dtype)],
    );
    Ok(())
}

/// Whether the device multiplies 16-bit matrices of 16 x 8 x 16 elements that planes of 32 units load together.
pub(crate) fn multiplies(client: &Client, dtype: DType) -> bool {
    let (properties, float) = (client.properties(), element(dtype));
    let hardware = &properties.hardware;
    let [m, n, k] = PIECE.map(|size| size as u32);
    let product = MmaConfig { a_type: float, b_type: float, cd_type: element(DType::F32), m, n, k };
    let planes = hardware.plane_size_min == PLANE as u32 && hardware.plane_size_max == PLANE as u32;
    let matmul = &properties.features.matmul;
    planes && dtype.size() == 2 && matmul.mma.contains(&product) && matmul.ldmatrix.contains(&float)
}

/// Whether a factor is stored transposed, and the elements from one of its stored rows to the next.
fn lies(factor: &CubeTensor) -> Result<(bool, usize), String> {
    let (shape, strides) = (factor.meta.shape(), factor.meta.strides());
    let (turned, row, width) = match (strides[0], strides[1]) {
        (row, 1) => (false, row, shape[1]),
        (1, row) => (true, row, shape[0]),
        _ => return Err("a factor has no dimension that lies in one piece".to_owned()),
    };
    if row.is_multiple_of(WIDE) && width.is_multiple_of(WIDE) {
        Ok((turned, row))
    } else {
        Err("a factor's rows do not divide into vectors".to_owned())
    }
}

#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Sizes {
    m: usize,
    n: usize,
    k: usize,
    /// From one stored row to the next, in vectors.
    left_row: usize,
    right_row: usize,
    /// In elements.
    result_row: usize,
}

#[cube(launch)]
fn matrix_product<F: Float, O: Float, W: Size, P: Size>(
    a: &[Vector<F, W>],
    b: &[Vector<F, W>],
    c: &mut [Vector<O, P>],
    sizes: Sizes,
    #[comptime] tile: Tile,
    #[define(F, O)] _types: [ElemType; 2],
) {
    let (left, right) = comptime!((tile.of(Factor::Left), tile.of(Factor::Right)));
    let (first_row, first_column) = (CUBE_POS_Y as usize * tile.rows, CUBE_POS_X as usize * tile.columns);
    let mut lefts = Shared::<[Vector<F, W>]>::new_aligned_slice(comptime!(2 * left.size()), 16usize);
    let mut rights = Shared::<[Vector<F, W>]>::new_aligned_slice(comptime!(2 * right.size()), 16usize);
    let mut next_left = Array::<Vector<F, W>>::new(comptime!(left.each()));
    let mut next_right = Array::<Vector<F, W>>::new(comptime!(right.each()));

    let plane = UNIT_POS as usize / PLANE;
    let plane_row = plane / comptime!(PLANES[1]) * comptime!(tile.rows / PLANES[0]);
    let plane_column = plane % comptime!(PLANES[1]) * comptime!(tile.columns / PLANES[1]);
    let mut sums = Array::<Vector<f32, P>>::new(comptime!(4 * tile.lefts() * tile.pairs()));
    #[unroll]
    for i in 0..comptime!(4 * tile.lefts() * tile.pairs()) {
        sums[i] = Vector::new(0.0);
    }

    fetch::<F, W>(a, &mut next_left, first_row, sizes.m, 0, sizes.k, sizes.left_row, left);
    fetch::<F, W>(b, &mut next_right, first_column, sizes.n, 0, sizes.k, sizes.right_row, right);
    store::<F, W>(&next_left, &mut lefts, 0, left);
    store::<F, W>(&next_right, &mut rights, 0, right);
    sync_cube();
    let steps = sizes.k.div_ceil(tile.depth);
    for step in 0..steps {
        let (here, there) = (step % 2, (step + 1) % 2);
        let more = step + 1 < steps;
        if more {
            let at = (step + 1) * tile.depth;
            fetch::<F, W>(a, &mut next_left, first_row, sizes.m, at, sizes.k, sizes.left_row, left);
            fetch::<F, W>(b, &mut next_right, first_column, sizes.n, at, sizes.k, sizes.right_row, right);
        }
        let (in_lefts, in_rights) = (here * comptime!(left.size()), here * comptime!(right.size()));
        #[unroll]
        for piece in 0..comptime!(tile.depth / PIECE[2]) {
            let mut factors = Array::<Vector<F, P>>::new(comptime!(4 * tile.lefts()));
            #[unroll]
            for i in 0..comptime!(tile.lefts()) {
                let factor = left_factor::<F, W, P>(&lefts, in_lefts, plane_row + i * PIECE[0], piece, left);
                #[unroll]
                for j in 0..4usize {
                    factors[4 * i + j] = factor[j];
                }
            }
            #[unroll]
            for pair in 0..comptime!(tile.pairs()) {
                let column = plane_column + comptime!(2 * pair * PIECE[1]);
                let factor = right_factors::<F, W, P>(&rights, in_rights, column, piece, right);
                #[unroll]
                for i in 0..comptime!(tile.lefts()) {
                    add_products::<F, P>(&factors, &factor, &mut sums, i, comptime!(4 * (i * tile.pairs() + pair)));
                }
            }
        }
        if more {
            store::<F, W>(&next_left, &mut lefts, there * comptime!(left.size()), left);
            store::<F, W>(&next_right, &mut rights, there * comptime!(right.size()), right);
        }
        sync_cube();
    }

    let lane = UNIT_POS as usize % PLANE;
    #[unroll]
    for i in 0..comptime!(tile.lefts()) {
        #[unroll]
        for half in 0..comptime!(2 * tile.pairs()) {
            #[unroll]
            for j in 0..2usize {
                let row = first_row + plane_row + comptime!(i * PIECE[0] + 8 * j) + lane / 4;
                let column = first_column + plane_column + comptime!(half * PIECE[1]) + 2 * (lane % 4);
                if row < sizes.m && column < sizes.n {
                    let sum = sums[comptime!(2 * (2 * i * tile.pairs() + half) + j)];
                    c[(row * sizes.result_row + column) / PAIR] = Vector::cast_from(sum);
                }
            }
        }
    }
}

/// A unit's share of one step of a factor; zeros outside of it.
#[cube]
fn fetch<F: Float, W: Size>(
    from: &[Vector<F, W>],
    to: &mut Array<Vector<F, W>>,
    first: usize,
    end: usize,
    first_depth: usize,
    end_depth: usize,
    row_vectors: usize,
    #[comptime] stored: Stored,
) {
    #[unroll]
    for i in 0..comptime!(stored.each()) {
        let at = UNIT_POS as usize + comptime!(i * UNITS);
        let (row, vector) = (at / comptime!(stored.vectors), at % comptime!(stored.vectors));
        let mut value = Vector::<F, W>::new(F::new(0.0));
        if comptime!(stored.along_depth) {
            let (depth, wide) = (first_depth + row, first + vector * WIDE);
            if depth < end_depth && wide < end {
                value = from[depth * row_vectors + wide / WIDE];
            }
        } else {
            let (depth, wide) = (first_depth + vector * WIDE, first + row);
            if depth < end_depth && wide < end {
                value = from[wide * row_vectors + depth / WIDE];
            }
        }
        to[i] = value;
    }
}

/// Puts a unit's share into the cube's memory, which begins at `begin`.
#[cube]
fn store<F: Float, W: Size>(
    from: &Array<Vector<F, W>>,
    to: &mut Shared<[Vector<F, W>]>,
    begin: usize,
    #[comptime] stored: Stored,
) {
    #[unroll]
    for i in 0..comptime!(stored.each()) {
        let at = UNIT_POS as usize + comptime!(i * UNITS);
        let (row, vector) = (at / comptime!(stored.vectors), at % comptime!(stored.vectors));
        to[begin + row * comptime!(stored.stride()) + vector] = from[i];
    }
}

/// The left factor of 16 rows from `row` and 16 of the step's depth from `16 piece`.
#[cube]
fn left_factor<F: Float, W: Size, P: Size>(
    from: &Shared<[Vector<F, W>]>,
    begin: usize,
    row: usize,
    #[comptime] piece: usize,
    #[comptime] stored: Stored,
) -> Array<Vector<F, P>> {
    let product = MmaDefinition::<F, F, f32>::new(PIECE[0], PIECE[1], PIECE[2]);
    let lane = UNIT_POS_PLANE as usize;
    if comptime!(stored.along_depth) {
        let depth = comptime!(piece * PIECE[2]) + lane / 16 * 8 + lane % 8;
        let start = begin + depth * comptime!(stored.stride()) + row / WIDE + lane / 8 % 2;
        product.load_matrix::<Vector<F, W>, P>(&from[start..start + 1], MatrixIdent::A, 4usize, true)
    } else {
        let start = begin + (row + lane % 16) * comptime!(stored.stride()) + comptime!(2 * piece) + lane / 16;
        product.load_matrix::<Vector<F, W>, P>(&from[start..start + 1], MatrixIdent::A, 4usize, false)
    }
}

/// Two right factors side by side, from `column` on.
#[cube]
fn right_factors<F: Float, W: Size, P: Size>(
    from: &Shared<[Vector<F, W>]>,
    begin: usize,
    column: usize,
    #[comptime] piece: usize,
    #[comptime] stored: Stored,
) -> Array<Vector<F, P>> {
    let product = MmaDefinition::<F, F, f32>::new(PIECE[0], PIECE[1], PIECE[2]);
    let lane = UNIT_POS_PLANE as usize;
    if comptime!(stored.along_depth) {
        let depth = comptime!(piece * PIECE[2]) + lane % 16;
        let start = begin + depth * comptime!(stored.stride()) + column / WIDE + lane / 16;
        product.load_matrix::<Vector<F, W>, P>(&from[start..start + 1], MatrixIdent::B, 4usize, true)
    } else {
        let row = column + lane / 16 * 8 + lane % 8;
        let start = begin + row * comptime!(stored.stride()) + comptime!(2 * piece) + lane / 8 % 2;
        product.load_matrix::<Vector<F, W>, P>(&from[start..start + 1], MatrixIdent::B, 4usize, false)
    }
}

/// Adds the products of the left factor `which` with two right ones to the four sums from `first` on.
#[cube]
fn add_products<F: Float, P: Size>(
    lefts: &Array<Vector<F, P>>,
    rights: &Array<Vector<F, P>>,
    sums: &mut Array<Vector<f32, P>>,
    #[comptime] which: usize,
    #[comptime] first: usize,
) {
    let product = MmaDefinition::<F, F, f32>::new(PIECE[0], PIECE[1], PIECE[2]);
    let mut left = Array::<Vector<F, P>>::new(4usize);
    #[unroll]
    for j in 0..4usize {
        left[j] = lefts[4 * which + j];
    }
    #[unroll]
    for half in 0..2usize {
        let mut right = Array::<Vector<F, P>>::new(2usize);
        right[0] = rights[2 * half];
        right[1] = rights[2 * half + 1];
        let at = comptime!(first + 2 * half);
        add_product::<F, P>(product, &left, &right, sums, at);
    }
}
