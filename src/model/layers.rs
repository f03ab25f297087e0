use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor, TensorData};

use super::{Array, BuildRequest};
use crate::ops;
use crate::ops::Products;
use crate::ops::precision::in_type;

/// Rows of a matrix that are turned into columns at a time.
const TURNED_ROWS: usize = 16;

/// Where a weight comes from: a Hugging Face parameter `[out, in]`.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub name: String,
    pub out: usize,
}

/// One or more Hugging Face matrices side by side, `[in, sum of out]`.
#[derive(Module, Debug)]
pub(super) struct Linear {
    pub weight: Param<Tensor<2>>,
    #[module(skip)]
    sources: Vec<Source>,
    #[module(skip)]
    dtype: DType,
}

impl Linear {
    /// `folded`: the norm before it, whose scale is multiplied into it. `few_rows`: whether it lies as products of few rows want
    /// it, which gradients and optimisers need not.
    pub fn new(request: &BuildRequest, sources: Vec<Source>, folded: Option<&str>, few_rows: bool) -> Self {
        let of = |name: &str| &request.weights.0[name];
        let array = |source: &Source| match folded {
            Some(norm) => Cow::Owned(scaled(of(&source.name), &of(norm).values)),
            None => Cow::Borrowed(of(&source.name)),
        };
        let arrays: Vec<Cow<'_, Array<f32>>> = sources.iter().map(array).collect();
        let input = arrays[0].shape[1];
        let output: usize = sources.iter().map(|source| source.out).sum();
        let on = |values: Vec<f32>, shape: [usize; 2]| {
            Tensor::<2>::from_data(TensorData::new(values, shape), (request.device, request.weight_dtype))
        };
        let weight = if few_rows && ops::fused_linear::reads_transposed(input, request.device, request.weight_dtype) {
            let rows: Vec<&[f32]> = arrays.iter().map(|array| array.values.as_slice()).collect();
            ops::fused_linear::transposed(on(rows.concat(), [output, input]))
        } else {
            on(side_by_side(&arrays, input, output), [input, output])
        };
        Self { weight: Param::from_tensor(weight), sources, dtype: request.dtype }
    }

    /// The weight `[in, sum of out]` as products use it.
    pub fn weight(&self) -> Tensor<2> {
        in_type(self.weight.val(), self.dtype)
    }

    /// The weight's gradient, if it has one.
    pub fn gradient(&self, gradients: &GradientsParams) -> Option<Tensor<2>> {
        gradients.get(self.weight.id)
    }

    /// `x [batch, seq, in]` to `[batch, seq, out]`, through our operation if it is said who makes its product, else through
    /// Burn's.
    pub fn forward(&self, x: Tensor<3>, by: Option<Products>) -> Tensor<3> {
        let weight = self.weight();
        match by {
            Some(by) => ops::linear(x, weight, by),
            None => burn::tensor::module::linear(x, weight, None),
        }
    }

    /// As [`Self::forward`], added to `residual [batch, seq, out]`.
    pub fn forward_add(&self, x: Tensor<3>, residual: Tensor<3>, by: Option<Products>) -> Tensor<3> {
        match by {
            Some(by) => ops::linear_add(x, self.weight(), residual, by),
            None => residual + self.forward(x, None),
        }
    }

    /// Splits a tensor of the weight's shape back into the Hugging Face matrices.
    pub fn export(&self, tensor: &Tensor<2>, to: &mut BTreeMap<String, Array<f64>>) {
        let [input, _] = tensor.dims();
        let mut column = 0;
        for source in &self.sources {
            let part = tensor.clone().narrow(1, column, source.out).transpose();
            to.insert(source.name.clone(), Array { shape: vec![source.out, input], values: host(part) });
            column += source.out;
        }
    }
}

/// A matrix `[out, in]`, its columns multiplied by `scale [in]`.
fn scaled(matrix: &Array<f32>, scale: &[f32]) -> Array<f32> {
    let values = matrix.values.iter().zip(scale.iter().cycle()).map(|(value, scale)| value * scale).collect();
    Array { shape: matrix.shape.clone(), values }
}

/// Rows of all matrices as columns side by side, `[in, sum of out]`.
fn side_by_side(arrays: &[Cow<'_, Array<f32>>], input: usize, output: usize) -> Vec<f32> {
    let mut values = vec![0.0; input * output];
    let mut column = 0;
    // Some rows at a time become columns, so that what is written lies together.
    for rows in arrays.iter().flat_map(|array| array.values.chunks(TURNED_ROWS * input)) {
        for (i, to) in values.chunks_exact_mut(output).enumerate() {
            for (to, row) in to[column..].iter_mut().zip(rows.chunks_exact(input)) {
                *to = row[i];
            }
        }
        column += rows.len() / input;
    }
    values
}

/// Scale of an RMSNorm.
#[derive(Module, Debug)]
pub(super) struct Norm {
    pub weight: Param<Tensor<1>>,
    #[module(skip)]
    pub name: String,
}

impl Norm {
    /// `folded`: whether its scale is a part of the weights behind it.
    pub fn new(request: &BuildRequest, name: String, folded: bool) -> Self {
        let values = &request.weights.0[&name].values;
        let length = values.len();
        let values = if folded { vec![1.0; length] } else { values.clone() };
        let weight = Tensor::from_data(TensorData::new(values, [length]), (request.device, request.weight_dtype));
        Self { weight: Param::from_tensor(weight), name }
    }

    pub fn export(&self, tensor: Tensor<1>, to: &mut BTreeMap<String, Array<f64>>) {
        let [length] = tensor.dims();
        to.insert(self.name.clone(), Array { shape: vec![length], values: host(tensor) });
    }
}

/// A tensor's elements on the host.
pub(super) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}
