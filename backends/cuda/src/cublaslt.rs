//! Matrix products by NVIDIA's own library, cuBLASLt, on CubeCL's stream and in its memory, so that they take their turn among
//! CubeCL's kernels and are recorded in its graphs.
//!
//! The library counts columns first. Row-major `d = a b + c` is column-major `d^T = b^T a^T + c^T`, and a row-major matrix
//! is a column-major transposed one as it lies: the factors change places, nothing is copied.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use burnmark_backend_cubecl as cube;
use cubecl::cuda::CudaRuntime;
use cubecl::server::Handle;
use cubecl_runtime::runtime::Runtime;
use cudarc::cublaslt::{result, sys};

type Server = <CudaRuntime as Runtime>::Server;

/// Memory that the library may work in: 4 MiB, and 32 MiB for products of at least 2^33 multiplications, as PyTorch gives it
/// on Hopper.
const WORKSPACE: [usize; 2] = [4 << 20, 32 << 20];
const LARGE: usize = 1 << 33;

/// Alignment the library may rely on at most, in bytes.
const ALIGNMENT: u64 = 256;

/// The name its launches are counted under.
const KERNEL: &str = "cuBLASLt";

/// What the library is told of a product; the same question has the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Question {
    m: usize,
    n: usize,
    k: usize,
    a: Stored,
    b: Stored,
    /// From one row of the result to the next, and of what is added to it.
    rows: [usize; 2],
    of_factors: DType,
    of_result: DType,
    adds: bool,
    alignment: u64,
}

/// How a factor lies: whether transposed, and the elements from one stored row to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stored {
    turned: bool,
    row: usize,
}

/// The library's answer, and the descriptions it wants with every launch; they live as long as the process.
#[derive(Clone, Copy)]
struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    /// Of its left and right factor, what is added, and the result.
    layouts: [sys::cublasLtMatrixLayout_t; 4],
    algorithm: sys::cublasLtMatmulAlgo_t,
    workspace: usize,
}

/// The library on one device.
struct Library {
    handle: sys::cublasLtHandle_t,
    plans: HashMap<Question, Result<Plan, String>>,
    /// The largest memory that a plan wanted so far.
    workspace: Option<(usize, Handle)>,
}

// SAFETY: the library's handle and descriptions may be used from any thread, one at a time.
unsafe impl Send for Library {}

/// By the device's number.
static LIBRARIES: Mutex<Option<HashMap<u16, Library>>> = Mutex::new(None);

/// The library's version, such as `13.1.0`, or why there is none.
pub fn version() -> Result<String, String> {
    // SAFETY: only looks for the library.
    if !unsafe { sys::is_culib_present() } {
        return Err(
            "NVIDIA's cuBLASLt was not found; it comes with the CUDA toolkit, whose folder of libraries has to be on \
                    LD_LIBRARY_PATH"
                .to_owned(),
        );
    }
    // SAFETY: takes nothing.
    let version = unsafe { sys::cublasLtGetVersion() };
    Ok(format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100))
}

/// `to [m, n] = a [m, k] b [k, n] + residual [m, n]`, summed in 32 bits (64 for 64-bit factors, whose product of 32 bits each is made of
/// TF32 as CubeCL's is). `Err` if the library is not there, or takes no factors that lie like these; nothing is written then.
pub fn multiply(a: &CubeTensor, b: &CubeTensor, residual: Option<&CubeTensor>, to: &CubeTensor) -> Result<(), String> {
    version()?;
    let client = &to.client;
    let launch = || client.exclusive(|| enqueue(a, b, residual, to)).map_err(|error| error.to_string())?;
    cube::watched(client, KERNEL, launch)
}

/// Launches on the thread that has the device, after everything that was launched before.
fn enqueue(a: &CubeTensor, b: &CubeTensor, residual: Option<&CubeTensor>, to: &CubeTensor) -> Result<(), String> {
    let ([m, k], [_, n]) = (a.shape().dims::<2>(), b.shape().dims::<2>());
    let added = residual.unwrap_or(to);
    let address = |handle: &Handle| {
        to.client.get_resource::<Server>(handle.clone()).map_err(|error| format!("a buffer has no address: {error}"))
    };
    let memory = [&a.handle, &b.handle, &added.handle, &to.handle].map(address);
    let [a_memory, b_memory, added_memory, to_memory] = memory;
    let (a_memory, b_memory, added_memory, to_memory) = (a_memory?, b_memory?, added_memory?, to_memory?);
    let [a_at, b_at, added_at, to_at] =
        [&a_memory, &b_memory, &added_memory, &to_memory].map(|memory| memory.resource().ptr);
    let alignment = 1 << (a_at | b_at | added_at | to_at | ALIGNMENT).trailing_zeros();
    let question = Question {
        m,
        n,
        k,
        a: stored(a)?,
        b: stored(b)?,
        rows: [row(to)?, row(added)?],
        of_factors: a.dtype,
        of_result: to.dtype,
        adds: residual.is_some(),
        alignment,
    };
    let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
    let number = to.client.service_id().device.index_id;
    let library = match libraries.get_or_insert_default().entry(number) {
        std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
        std::collections::hash_map::Entry::Vacant(new) => new.insert(Library::new()?),
    };
    let plan = library.plan(question)?;
    let workspace = library.workspace(plan.workspace, to);
    let workspace = workspace.as_ref().map(address).transpose()?;
    let workspace_at = workspace.as_ref().map_or(0, |memory| memory.resource().ptr);
    let [one, zero] = [1.0_f32, 0.0].map(Scalar::Single);
    let [one, zero] = if a.dtype == DType::F64 { [1.0, 0.0].map(Scalar::Double) } else { [one, zero] };
    let pointer = |address: u64| address as *mut c_void;
    let [left, right, added, result] = plan.layouts;
    // SAFETY: the buffers are alive and as large as the descriptions say; what is launched on the stream of the result later
    // waits for this.
    unsafe {
        result::matmul(
            library.handle,
            plan.description,
            one.at(),
            if question.adds { one.at() } else { zero.at() },
            pointer(b_at),
            left,
            pointer(a_at),
            right,
            pointer(added_at),
            added,
            pointer(to_at),
            result,
            &raw const plan.algorithm,
            pointer(workspace_at),
            plan.workspace,
            to_memory.resource().stream.cast(),
        )
    }
    .map_err(told)
}

/// A factor of the whole product, in the type that sums are made in.
enum Scalar {
    Single(f32),
    Double(f64),
}

impl Scalar {
    fn at(&self) -> *const c_void {
        match self {
            Self::Single(value) => std::ptr::from_ref(value).cast(),
            Self::Double(value) => std::ptr::from_ref(value).cast(),
        }
    }
}

impl Library {
    fn new() -> Result<Self, String> {
        let handle = result::create_handle().map_err(told)?;
        Ok(Self { handle, plans: HashMap::new(), workspace: None })
    }

    fn plan(&mut self, question: Question) -> Result<Plan, String> {
        let handle = self.handle;
        self.plans.entry(question).or_insert_with(|| Plan::new(handle, &question)).clone()
    }

    /// Memory of at least `bytes` bytes, which stays where it is as long as recorded graphs may use it: to the end.
    fn workspace(&mut self, bytes: usize, like: &CubeTensor) -> Option<Handle> {
        if bytes > 0 && self.workspace.as_ref().is_none_or(|(size, _)| *size < bytes) {
            let old = self.workspace.replace((bytes, like.client.empty(bytes)));
            std::mem::forget(old);
        }
        self.workspace.as_ref().map(|(_, handle)| handle.clone()).filter(|_| bytes > 0)
    }
}

impl Plan {
    fn new(handle: sys::cublasLtHandle_t, question: &Question) -> Result<Self, String> {
        let Question { m, n, k, a, b, rows, of_factors, of_result, adds: _, alignment } = *question;
        let (of_factors, of_result) = (element(of_factors)?, element(of_result)?);
        let (sums, scale) = match question.of_factors {
            DType::F64 => (sys::cublasComputeType_t::CUBLAS_COMPUTE_64F, sys::cudaDataType_t::CUDA_R_64F),
            DType::F32 => (sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32, sys::cudaDataType_t::CUDA_R_32F),
            _ => (sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType_t::CUDA_R_32F),
        };
        let description = result::create_matmul_desc(sums, scale).map_err(told)?;
        let turns = [
            (sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA, b.turned),
            (sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSB, a.turned),
        ];
        for (attribute, turned) in turns {
            let turned = i32::from(turned);
            // SAFETY: the description was made above; the value is read at once.
            unsafe {
                result::set_matmul_desc_attribute(description, attribute, (&raw const turned).cast(), size_of::<i32>())
            }
            .map_err(told)?;
        }
        // Of a factor `[rows, columns]` the library sees columns as rows; of a transposed one it sees it as it is.
        let layout = |kind, rows: usize, columns: usize, turned: bool, row: usize| {
            let (long, count) = if turned { (rows, columns) } else { (columns, rows) };
            result::create_matrix_layout(kind, long as u64, count as u64, row as i64).map_err(told)
        };
        let layouts = [
            layout(of_factors, k, n, b.turned, b.row)?,
            layout(of_factors, m, k, a.turned, a.row)?,
            layout(of_result, m, n, false, rows[1])?,
            layout(of_result, m, n, false, rows[0])?,
        ];
        let most = WORKSPACE[usize::from(m * n * k >= LARGE)];
        let preference = result::create_matmul_pref().map_err(told)?;
        let alignments = [
            sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ];
        // SAFETY: everything was made above and is alive; values are read at once.
        let found = unsafe {
            let workspace = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            result::set_matmul_pref_attribute(preference, workspace, (&raw const most).cast(), size_of::<usize>())
                .map_err(told)?;
            for attribute in alignments {
                let bytes = alignment as u32;
                result::set_matmul_pref_attribute(preference, attribute, (&raw const bytes).cast(), size_of::<u32>())
                    .map_err(told)?;
            }
            let [left, right, added, to] = layouts;
            let found = result::get_matmul_algo_heuristic(handle, description, left, right, added, to, preference)
                .map_err(told);
            result::destroy_matmul_pref(preference).map_err(told)?;
            found?
        };
        Ok(Self { description, layouts, algorithm: found.algo, workspace: found.workspaceSize })
    }
}

fn stored(factor: &CubeTensor) -> Result<Stored, String> {
    match factor.meta.strides() {
        strides if strides[1] == 1 => Ok(Stored { turned: false, row: strides[0] }),
        strides if strides[0] == 1 => Ok(Stored { turned: true, row: strides[1] }),
        _ => Err("a factor has no dimension that lies in one piece".to_owned()),
    }
}

/// From one row to the next of a matrix that is stored row by row.
fn row(matrix: &CubeTensor) -> Result<usize, String> {
    let strides = matrix.meta.strides();
    if strides[1] == 1 { Ok(strides[0]) } else { Err("the result does not lie row by row".to_owned()) }
}

fn element(dtype: DType) -> Result<sys::cudaDataType_t, String> {
    match dtype {
        DType::F64 => Ok(sys::cudaDataType_t::CUDA_R_64F),
        DType::F32 => Ok(sys::cudaDataType_t::CUDA_R_32F),
        DType::F16 => Ok(sys::cudaDataType_t::CUDA_R_16F),
        DType::BF16 => Ok(sys::cudaDataType_t::CUDA_R_16BF),
        other => Err(format!("cuBLASLt multiplies no {other:?}")),
    }
}

fn told(error: result::CublasError) -> String {
    format!("cuBLASLt: {error}")
}
