//! What the kernels for CubeCL devices share: tensors, element types, launch sizes, sums over a cube, norms.
//!
//! Kernels take row-major buffers, read and write them in vectors, and compute in at least 32 bits whatever the
//! element type is. How much there is they are told: a buffer's own length counts what the device allocated, which on
//! CUDA is more, and does no more than keep them within their memory.

mod copies;
mod matrix_product;
mod overlap;
mod product;
mod quick;
mod rows;
mod vector_products;

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::config::autotune::AutotuneLevel;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use cubecl::ir::features::Plane;
use cubecl::ir::{ElemType, FloatKind, IntKind};
use cubecl::prelude::*;

pub(crate) use copies::{bring, for_one_cube, own_arrived};
pub(crate) use matrix_product::multiplies;
pub(crate) use overlap::{next_may_begin, overlaps, wait_for};
pub(crate) use product::{product, product_add, product_in};
pub(crate) use quick::{exp2_of, reciprocal_of};
pub(crate) use rows::{Norm, NormRows, Shares, asks_at_once, item_of, norm_rows, row_factor, row_of};
pub(crate) use vector_products::{add_product, add_products, zero_sums};

/// Units of a cube that works through elements one by one.
const UNITS: u32 = 256;

/// Most and fewest units that share a row.
const ROW_UNITS: [usize; 2] = [256, 32];

/// Vectors of a row that each unit works through, if there are enough.
pub(crate) const VECTORS_PER_UNIT: usize = 2;

/// Whether kernels are to be tuned; with the cheapest autotune the first that fits is taken.
pub(crate) fn tunes() -> bool {
    !matches!(CubeClRuntimeConfig::get().autotune.level, AutotuneLevel::Minimal)
}

/// Processors that run cubes beside one another, one if the device does not tell.
pub(crate) fn processors(client: &Client) -> usize {
    client.properties().hardware.num_streaming_multiprocessors.unwrap_or(1) as usize
}

/// Elements one after the other, in row-major order.
pub(crate) fn row_major(tensor: CubeTensor) -> CubeTensor {
    into_contiguous(tensor)
}

/// A tensor to be written, on the device of `like`.
pub(crate) fn new_tensor(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), dtype)
}

/// The element type as kernels name it.
pub(crate) fn element(dtype: DType) -> ElemType {
    ElemType::Float(match dtype {
        DType::F64 => FloatKind::F64,
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => FloatKind::F32,
    })
}

/// The type of whole numbers as kernels name it.
pub(crate) fn integer(dtype: DType) -> ElemType {
    ElemType::Int(if dtype == DType::I64 { IntKind::I64 } else { IntKind::I32 })
}

/// What elements of a type are summed in.
pub(crate) fn accumulator(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// Rows and columns of a tensor whose rows are its last dimension.
pub(crate) fn rows_and_columns(tensor: &CubeTensor) -> (usize, usize) {
    let shape = tensor.shape();
    let columns = shape[shape.num_dims() - 1];
    (shape.num_elements() / columns.max(1), columns)
}

/// The widest vector that every row of `columns` elements divides into, for elements of all these types.
pub(crate) fn vector_size(client: &Client, columns: usize, dtypes: &[DType]) -> usize {
    let widest = dtypes.iter().map(DType::size).max().unwrap_or(4);
    client.io_optimized_vector_sizes(widest).find(|size| columns.is_multiple_of(*size)).unwrap_or(1)
}

/// Cubes of units that each do one of `work` pieces; a kernel must stop units beyond the last.
pub(crate) fn one_each(client: &Client, work: usize) -> (CubeCount, CubeDim) {
    let units = UNITS.min(client.properties().hardware.max_units_per_cube);
    let dim = CubeDim::new_1d(units);
    (cubecl::calculate_cube_count_elemwise(client, work, dim), dim)
}

/// `count` cubes of `units` units; a kernel must stop cubes beyond the last.
pub(crate) fn cubes(client: &Client, count: usize, units: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new_1d(units as u32);
    (cubecl::calculate_cube_count_elemwise(client, count * units, dim), dim)
}

/// How the units of a cube add up what each has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Team {
    /// Units of the cube, a power of two.
    pub units: usize,
    /// Units of a plane, if planes can be relied on; else 1.
    pub plane: usize,
}

impl Team {
    /// The units for rows of `vectors` vectors.
    pub fn of(client: &Client, vectors: usize) -> Self {
        let hardware = &client.properties().hardware;
        let [most, fewest] = ROW_UNITS;
        let most = most.min(hardware.max_units_per_cube as usize);
        let units = vectors.div_ceil(VECTORS_PER_UNIT).next_power_of_two().clamp(fewest.min(most), most);
        Self { units, plane: plane(client, units) }
    }

    /// `units` units, or as many as there can be.
    pub fn new(client: &Client, units: usize) -> Self {
        let units = units.min(client.properties().hardware.max_units_per_cube as usize);
        Self { units, plane: plane(client, units) }
    }
}

/// Units of a plane where all planes are alike and divide `units`, else 1.
fn plane(client: &Client, units: usize) -> usize {
    let (properties, hardware) = (client.properties(), &client.properties().hardware);
    let size = hardware.plane_size_min as usize;
    let alike = hardware.plane_size_min == hardware.plane_size_max && properties.features.plane.contains(Plane::Ops);
    if alike && size > 0 && units.is_multiple_of(size) { size } else { 1 }
}

/// The sum of `value` over all units of the cube, for each of them. All must call it.
#[cube]
pub(crate) fn cube_sum<A: Float>(value: A, #[comptime] team: Team) -> A {
    cube_fold::<A>(value, team, Fold::Sum)
}

/// The largest `value` among all units of the cube, for each of them. All must call it.
#[cube]
pub(crate) fn cube_max<A: Float>(value: A, #[comptime] team: Team) -> A {
    cube_fold::<A>(value, team, Fold::Max)
}

/// What becomes of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fold {
    Sum,
    Max,
}

#[cube]
fn fold_two<A: Float>(a: A, b: A, #[comptime] fold: Fold) -> A {
    if comptime!(fold == Fold::Sum) { a + b } else { max(a, b) }
}

#[cube]
fn plane_fold<A: Float>(value: A, #[comptime] fold: Fold) -> A {
    if comptime!(fold == Fold::Sum) { plane_sum(value) } else { plane_max(value) }
}

#[cube]
fn cube_fold<A: Float>(value: A, #[comptime] team: Team, #[comptime] fold: Fold) -> A {
    let (unit, plane) = (UNIT_POS as usize, comptime!(team.plane));
    let parts = comptime!(team.units / team.plane);
    if comptime!(parts == 1) {
        plane_fold::<A>(value, fold)
    } else if comptime!(plane > 1) {
        let mut shared = Shared::<[A]>::new_slice(parts);
        let part = plane_fold::<A>(value, fold);
        let in_plane = unit % plane;
        if in_plane == 0 {
            shared[unit / plane] = part;
        }
        sync_cube();
        // Each plane folds the parts for itself. Where there are fewer than units, one may count twice for the largest.
        let mut mine = shared[in_plane % parts];
        if comptime!(fold == Fold::Sum) {
            mine = select(in_plane < parts, mine, A::new(0.0));
        }
        for other in range_stepped(in_plane + plane, parts, plane) {
            mine = fold_two::<A>(mine, shared[other], fold);
        }
        let whole = plane_fold::<A>(mine, fold);
        // The next fold writes the same memory.
        sync_cube();
        whole
    } else {
        let mut shared = Shared::<[A]>::new_slice(parts);
        shared[unit] = value;
        sync_cube();
        let mut width = comptime!(parts / 2).runtime();
        while width > 0 {
            if unit < width {
                shared[unit] = fold_two::<A>(shared[unit], shared[unit + width], fold);
            }
            sync_cube();
            width /= 2;
        }
        let whole = shared[0];
        sync_cube();
        whole
    }
}

/// One over the root mean square of `columns` elements whose squares sum to `squares`, `eps` added to their mean.
#[cube]
pub(crate) fn inverse_rms<A: Float>(squares: A, columns: A, eps: A) -> A {
    (squares / columns + eps).sqrt().recip()
}

/// The sum of `value` over `units` units side by side in a plane, a power of two, for each of them. All must call it.
#[cube]
pub(crate) fn plane_sum_of_neighbours<A: Float>(value: A, #[comptime] units: usize) -> A {
    let mut sum = value;
    #[unroll]
    for i in 0..comptime!(units.ilog2()) {
        sum += plane_shuffle_xor(sum, comptime!(1 << i));
    }
    sum
}

/// The sum of `value` over every `apart`th of `units` units of a plane, both powers of two, for each of them. All must call
/// it.
#[cube]
pub(crate) fn plane_sum_of_every<A: Float, N: Size>(
    value: Vector<A, N>,
    #[comptime] apart: usize,
    #[comptime] units: usize,
) -> Vector<A, N> {
    let mut sum = value;
    #[unroll]
    for i in 0..comptime!((units / apart).ilog2()) {
        let mut other = sum;
        #[unroll]
        for e in 0..sum.vector_size() {
            other.insert(e, plane_shuffle_xor(sum.extract(e), comptime!((apart << i) as u32)));
        }
        sum += other;
    }
    sum
}
