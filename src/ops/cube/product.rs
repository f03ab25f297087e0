//! Matrix products of linear layers: by the vendor's library, or by kernels that a tuner chooses where the device multiplies
//! 16-bit matrices in hardware.
//!
//! Burn asks its tuner, which tries up to 33 kernels for every size it meets; those for plain units alone take NVRTC
//! 14 to 45 seconds each to compile, and win nothing here. These products ask for the few that do win.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::DType;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeTuneId};
use cubecl::client::Client;
use cubecl::tune::{LocalTuner, Tunable, TunableSet, TuneGroup, local_tuner};
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy;
use cubek::matmul::multi_level::components::tile::TileMatmulKind::Mma;
use cubek::matmul::multi_level::routines::batch::double_buffering::DoubleBufferingArgs;
use cubek::matmul::multi_level::routines::batch::ordered_double_buffering::OrderedSelectionArgs;
use cubek::matmul::multi_level::routines::batch::simple::SimpleArgs;
use cubek::matmul::routine::BlueprintStrategy::Inferred;
use cubek::matmul::tune_key::{MatmulAutotuneKey, MatmulGlobalScale};
use cubek::std::InputBinding;

use super::{matrix_product, new_tensor, tunes};
use crate::ops::linear::Products;

/// Tiles of our own kernel, rows x columns x depth; each takes less than 48 KiB of a cube's memory.
const TILES: [[usize; 3]; 3] = [[64, 64, 64], [128, 64, 32], [128, 128, 32]];

type Factors = (CubeTensor, CubeTensor, CubeTensor);

static TUNER: LocalTuner<MatmulAutotuneKey, CubeTuneId> = local_tuner!();

/// `a [m, k]` times `b [k, n]`, of one element type, which the result has as well.
pub(crate) fn product(a: CubeTensor, b: CubeTensor, by: Products) -> CubeTensor {
    let dtype = a.dtype;
    product_in(a, b, dtype, by)
}

/// `residual [m, n]` plus [`product`], in the type of the residual.
pub(crate) fn product_add(a: CubeTensor, b: CubeTensor, residual: CubeTensor, by: Products) -> CubeTensor {
    let residual = into_contiguous(residual);
    by_vendor(by, &a, &b, Some(&residual), residual.dtype).unwrap_or_else(|| {
        let product = product_in(a, b, residual.dtype, by);
        CubeBackend::float_add(residual, product)
    })
}

/// By the vendor's library if it is asked for, is there, and takes the factors.
fn by_vendor(
    by: Products,
    a: &CubeTensor,
    b: &CubeTensor,
    residual: Option<&CubeTensor>,
    dtype: DType,
) -> Option<CubeTensor> {
    if by != Products::Vendor || a.shape().num_elements() * b.shape().num_elements() == 0 {
        return None;
    }
    #[cfg(feature = "cuda")]
    {
        let out = new_tensor(a, [a.shape()[0], b.shape()[1]], dtype);
        match burnmark_backend_cuda::cublaslt::multiply(a, b, residual, &out) {
            Ok(()) => return Some(out),
            Err(why) => tracing::debug!("the vendor's library is passed over: {why}"),
        }
    }
    #[cfg(not(feature = "cuda"))]
    let _ = (residual, dtype);
    None
}

/// As [`product`], the result rounded to `dtype` alone.
pub(crate) fn product_in(a: CubeTensor, b: CubeTensor, dtype: DType, by: Products) -> CubeTensor {
    if let Some(product) = by_vendor(by, &a, &b, None, dtype) {
        return product;
    }
    let client = a.client.clone();
    if !multiplies(&client, a.dtype) || a.shape().num_elements() * b.shape().num_elements() == 0 {
        // Burn's kernels are not what tests are for, and one is compiled sooner than those its tuner compares.
        let strategy = if cfg!(test) { MatmulStrategy::Cube } else { MatmulStrategy::Autotune };
        let product = matmul(a, b, None, strategy, dtype);
        return product.expect("one of Burn's kernels always works");
    }
    let shape = [a.shape()[0], b.shape()[1]];
    let out = new_tensor(&a, shape, dtype);
    let small = || matrix_product::launch(&a, &b, &out, TILES[0]);
    if !tunes() && (small().is_ok() || launch(&simple(false), a.clone(), b.clone(), out.clone()).is_ok()) {
        return out;
    }
    let id = CubeTuneId::new(&client, &a.device);
    let kernels = TUNER.init(&id, kernels);
    TUNER.execute(&id, &client, kernels, (a, b, out.clone()));
    out
}

/// Whether the device multiplies matrices of 16-bit elements and sums them up in 32 bits.
fn multiplies(client: &Client, dtype: DType) -> bool {
    let (float, wide) = (super::element(dtype), super::element(DType::F32));
    let mut products = client.properties().features.matmul.mma.iter();
    dtype.size() == 2 && products.any(|product| product.a_type == float && product.cd_type == wide)
}

/// The candidates: kernels of our own, and CubeCL's with one stage of memory, for large products also with two.
fn kernels() -> TunableSet<MatmulAutotuneKey, Factors, ()> {
    let double = Strategy::DoubleCyclicMma(Inferred(DoubleBufferingArgs { specialized: false, tile_matmul: Mma }));
    let ordered = Strategy::OrderedDoubleMma(Inferred(OrderedSelectionArgs {
        partition_k: Some(2),
        row_count: Some(8),
        rows_per_plane: Some(2),
        tile_matmul: Mma,
    }));
    let is_large = |key: &MatmulAutotuneKey| matches!(key.analysis.scale_global, MatmulGlobalScale::Large);
    let any = TuneGroup::new("any", |_: &MatmulAutotuneKey| 1);
    let large = TuneGroup::new("large", move |key: &MatmulAutotuneKey| if is_large(key) { 1 } else { -1 });
    let candidates = [(simple(false), &any), (simple(true), &any), (double, &large), (ordered, &large)];
    let of_inputs = |_: &MatmulAutotuneKey, (a, b, out): &Factors| (a.clone(), b.clone(), out.copy());
    let own = TILES.into_iter().fold(TunableSet::new(key, of_inputs), |set, tile| {
        // The tuner rounds sizes: its answer must work for some that our kernel does not take.
        let launched = move |(a, b, out): Factors| {
            matrix_product::launch(&a, &b, &out, tile).or_else(|_| launch(&simple(false), a, b, out))
        };
        set.with(Tunable::new(&format!("tiles of {} x {}", tile[0], tile[1]), launched).group(&any, |_| 1))
    });
    candidates.into_iter().fold(own, |set, (strategy, group)| {
        let name = strategy.to_string();
        let launched = move |(a, b, out): Factors| launch(&strategy, a, b, out);
        set.with(Tunable::new(&name, launched).group(group, |_| 1))
    })
}

/// Tiles in one stage of memory; each plane with one row of tiles, or with several.
fn simple(multi_rows: bool) -> Strategy {
    Strategy::SimpleCyclicMma(Inferred(SimpleArgs { multi_rows, tile_matmul: Mma }))
}

fn launch(strategy: &Strategy, a: CubeTensor, b: CubeTensor, out: CubeTensor) -> Result<(), String> {
    let client = out.client.clone();
    let [element, of_out] = [&a, &out].map(|tensor| dtype_to_storage_type(tensor.dtype));
    let mut elements = MatmulElems::from_globals(&MatmulGlobalElems { lhs: element, rhs: element, out: of_out });
    let [a, b] = [a, b].map(|factor| InputBinding::new(factor.binding(), element));
    let strategy = strategy.clone().into();
    launch_ref(&strategy, &client, a, b, out.binding(), &mut elements).map_err(|error| format!("{error:?}"))
}

fn key((a, b, out): &Factors) -> MatmulAutotuneKey {
    let [of_a, of_b, of_out] = [a, b, out].map(|tensor| dtype_to_storage_type(tensor.dtype));
    let ((shape_a, shape_b), (strides_a, strides_b)) =
        ((a.meta.shape(), b.meta.shape()), (a.meta.strides(), b.meta.strides()));
    let (tiling_a, tiling_b) = (a.meta.tiling, b.meta.tiling);
    MatmulAutotuneKey::from_parts(
        shape_a, shape_b, strides_a, strides_b, tiling_a, tiling_b, of_a, of_b, of_out, None, None,
    )
}
