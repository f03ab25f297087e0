//! Matrix products by NVIDIA's own library, cuBLASLt, on CubeCL's stream and in its memory, so that they take their turn among
//! CubeCL's kernels and are recorded in its graphs.
//!
//! The library counts columns first. Row-major `d = a b + c` is column-major `d^T = b^T a^T + c^T`, and a row-major matrix
//! is a column-major transposed one as it lies: the factors change places, nothing is copied.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cuda::{External, GpuResource};
use cubecl::ir::attributes::BufferIOAttr;
use cubecl::prelude::*;
use cubecl::server::{Handle, KernelArguments};
use cudarc::cublaslt::{result, sys};
use cudarc::driver::sys::{CUcontext, CUstream};

use crate::stream::{context, elapsed, is_cuda, is_recorded, make_current, refused};

/// Memory that the library may work in: 4 MiB, and for products of at least 2^33 multiplications 32 MiB.
const WORKSPACE: [usize; 2] = [4 << 20, 32 << 20];
const LARGE: usize = 1 << 33;

/// Alignment the library may rely on at most, in bytes; CubeCL's allocations have more.
const ALIGNMENT: u64 = 256;

/// Kernels that the library proposes for a product, the first use of which times them all, and launches of each.
const PROPOSALS: usize = 16;
const TIMED: usize = 10;

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
    alignment: u64,
}

/// How a factor lies: whether transposed, and the elements from one stored row to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stored {
    turned: bool,
    row: usize,
}

/// The library's answer, and the descriptions it wants with every launch; they live as long as the process.
struct Plan {
    library: sys::cublasLtHandle_t,
    description: sys::cublasLtMatmulDesc_t,
    /// Of its left and right factor, what is added, and the result.
    layouts: [sys::cublasLtMatrixLayout_t; 4],
    /// The library's proposals, the one it thinks best first.
    proposals: Vec<sys::cublasLtMatmulHeuristicResult_t>,
    /// The fastest of them, once they were timed.
    fastest: OnceLock<usize>,
    /// Whether sums are made in 64 bits.
    double: bool,
}

// SAFETY: nothing changes a plan, and the library may be called from any thread.
unsafe impl Send for Plan {}
// SAFETY: as above.
unsafe impl Sync for Plan {}

/// The library on one device.
struct Library {
    context: CUcontext,
    handle: sys::cublasLtHandle_t,
    plans: HashMap<Question, Result<Arc<Plan>, String>>,
    /// Memory that plans work in, one after the other; recorded graphs hold what it was when they were recorded.
    workspaces: Vec<(usize, Handle)>,
}

// SAFETY: as of a plan.
unsafe impl Send for Library {}

/// By the device's number.
static LIBRARIES: Mutex<Option<HashMap<u16, Library>>> = Mutex::new(None);

/// The library's version, such as `13.1.0`, or why there is none.
pub fn version() -> Result<&'static str, &'static str> {
    static VERSION: OnceLock<Result<String, &str>> = OnceLock::new();
    let version = VERSION.get_or_init(|| {
        // SAFETY: only looks for the library.
        if !unsafe { sys::is_culib_present() } {
            return Err(
                "NVIDIA's cuBLASLt was not found; it comes with the CUDA toolkit, whose folder of libraries has to \
                        be on LD_LIBRARY_PATH",
            );
        }
        // SAFETY: takes nothing.
        let version = unsafe { sys::cublasLtGetVersion() };
        Ok(format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100))
    });
    version.as_deref().map_err(|why| *why)
}

/// `to [m, n] = a [m, k] b [k, n] + residual [m, n]`; sums are made in 32 bits (64 for factors of 64), factors of 32 bits rounded to
/// TF32 as CubeCL rounds them. `Err` if the library is not there or does not take factors that lie like these; nothing is
/// launched then.
pub fn multiply(a: &CubeTensor, b: &CubeTensor, residual: Option<&CubeTensor>, to: &CubeTensor) -> Result<(), String> {
    version()?;
    let client = &to.client;
    if !is_cuda(client) {
        return Err("the device is not CUDA's".to_owned());
    }
    let added = residual.unwrap_or(to);
    let ([m, k], [_, n]) = (a.shape().dims::<2>(), b.shape().dims::<2>());
    let handles = [a, b, added, to].map(|tensor| &tensor.handle);
    let offsets = handles.iter().fold(ALIGNMENT, |all, handle| all | handle.offset_start.unwrap_or(0));
    let question = Question {
        m,
        n,
        k,
        a: stored(a)?,
        b: stored(b)?,
        rows: [row(to)?, row(added)?],
        of_factors: a.dtype,
        of_result: to.dtype,
        alignment: 1 << offsets.trailing_zeros(),
    };
    let device = client.service_id().device.index_id;
    let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
    let library = match libraries.get_or_insert_default().entry(device) {
        std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
        std::collections::hash_map::Entry::Vacant(new) => new.insert(Library::new(device)?),
    };
    let plan = library.plan(question)?;
    let workspace = library.workspace(plan.workspace(), to);
    drop(libraries);
    let inputs = if residual.is_some() { vec![a, b, added] } else { vec![a, b] };
    let arguments = inputs.into_iter().fold(KernelArguments::new(), |arguments, tensor| {
        arguments.with_buffer_io(tensor.handle.clone().binding(), BufferIOAttr::ReadOnly)
    });
    let arguments = [workspace, to.handle.clone()]
        .into_iter()
        .fold(arguments, |arguments, handle| arguments.with_buffer_io(handle.binding(), BufferIOAttr::WriteOnly));
    let adds = residual.is_some();
    let enqueue = Box::new(move |buffers: &[GpuResource], stream: CUstream| plan.enqueue(buffers, adds, stream));
    client.launch(Box::new(External { name: KERNEL, enqueue }), CubeCount::new_single(), arguments);
    Ok(())
}

impl Library {
    fn new(device: u16) -> Result<Self, String> {
        let context = context(device)?;
        let handle = result::create_handle().map_err(told)?;
        Ok(Self { context, handle, plans: HashMap::new(), workspaces: Vec::new() })
    }

    fn plan(&mut self, question: Question) -> Result<Arc<Plan>, String> {
        let (handle, context) = (self.handle, self.context);
        let new = || {
            make_current(context).map_err(refused)?;
            Plan::new(handle, &question).map(Arc::new)
        };
        self.plans.entry(question).or_insert_with(new).clone()
    }

    /// Memory of at least `bytes` bytes that stays where it is.
    fn workspace(&mut self, bytes: usize, like: &CubeTensor) -> Handle {
        if let Some((_, handle)) = self.workspaces.iter().find(|(size, _)| *size >= bytes) {
            return handle.clone();
        }
        let size = bytes.next_power_of_two();
        let handle = like.client.empty(size);
        self.workspaces.push((size, handle.clone()));
        handle
    }
}

impl Plan {
    fn new(library: sys::cublasLtHandle_t, question: &Question) -> Result<Self, String> {
        let Question { m, n, k, a, b, rows, alignment, .. } = *question;
        let (of_factors, of_result) = (element(question.of_factors)?, element(question.of_result)?);
        let double = question.of_factors == DType::F64;
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
        let workspace = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        let bytes = alignment as u32;
        let [left, right, added, to] = layouts;
        let mut proposals = Vec::with_capacity(PROPOSALS);
        let mut count = 0;
        // SAFETY: everything was made above and is alive; values are read at once, and as many proposals are written as there
        // is room for.
        unsafe {
            let mut ask = || {
                let (most, size) = ((&raw const most).cast(), size_of::<usize>());
                result::set_matmul_pref_attribute(preference, workspace, most, size)?;
                for attribute in alignments {
                    let (bytes, size) = ((&raw const bytes).cast(), size_of::<u32>());
                    result::set_matmul_pref_attribute(preference, attribute, bytes, size)?;
                }
                sys::cublasLtMatmulAlgoGetHeuristic(
                    library,
                    description,
                    left,
                    right,
                    added,
                    to,
                    preference,
                    PROPOSALS as i32,
                    proposals.as_mut_ptr(),
                    &raw mut count,
                )
                .result()
            };
            let asked = ask();
            result::destroy_matmul_pref(preference).map_err(told)?;
            asked.map_err(told)?;
            proposals.set_len(count as usize);
        }
        proposals.retain(|proposal| proposal.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS);
        if proposals.is_empty() {
            return Err("cuBLASLt has no kernel for this product".to_owned());
        }
        Ok(Self { library, description, layouts, proposals, fastest: OnceLock::new(), double })
    }

    /// Bytes that any of the proposals works in.
    fn workspace(&self) -> usize {
        self.proposals.iter().map(|proposal| proposal.workspaceSize).max().unwrap_or(0)
    }

    /// Launches; `buffers` are the factors, what is added if anything is, the workspace and the result.
    fn enqueue(&self, buffers: &[GpuResource], adds: bool, stream: CUstream) -> Result<(), String> {
        let fastest = match self.fastest.get() {
            Some(fastest) => *fastest,
            None if is_recorded(stream)? => 0,
            None => *self.fastest.get_or_init(|| self.time(buffers, adds, stream)),
        };
        self.launch(fastest, buffers, adds, stream)
    }

    /// The fastest proposal for these buffers: the result is the same however often it is made.
    fn time(&self, buffers: &[GpuResource], adds: bool, stream: CUstream) -> usize {
        let time = |which: usize| {
            // What a first launch loads is no part of it.
            self.launch(which, buffers, adds, stream)?;
            elapsed(stream, || (0..TIMED).try_for_each(|_| self.launch(which, buffers, adds, stream)))
        };
        let times = (0..self.proposals.len()).filter_map(|which| Some((which, time(which).ok()?)));
        times.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(which, _)| which)
    }

    fn launch(&self, which: usize, buffers: &[GpuResource], adds: bool, stream: CUstream) -> Result<(), String> {
        let proposal = &self.proposals[which];
        let at = |index: usize| buffers[index].ptr as *mut c_void;
        let (workspace, to) = (at(buffers.len() - 2), at(buffers.len() - 1));
        let added = if adds { at(2) } else { to };
        let (single, double) = ([1.0_f32, f32::from(adds)], [1.0_f64, f64::from(adds)]);
        let factor = |which: usize| -> *const c_void {
            if self.double { (&raw const double[which]).cast() } else { (&raw const single[which]).cast() }
        };
        let [left, right, of_added, of_result] = self.layouts;
        // SAFETY: the buffers are alive and as large as the descriptions say; what the stream gets later waits for this.
        unsafe {
            result::matmul(
                self.library,
                self.description,
                factor(0),
                factor(1),
                at(1),
                left,
                at(0),
                right,
                added,
                of_added,
                to,
                of_result,
                &raw const proposal.algo,
                workspace,
                proposal.workspaceSize,
                stream.cast(),
            )
        }
        .map_err(told)
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
