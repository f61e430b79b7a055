// Schemas of the native operators. Their meaning is documented, with shapes, in the modules of perception/ops that call
// them; fake kernels and autograd formulas are registered in perception/ops/_native.py.
#include "registration.h"

TORCH_LIBRARY(PERCEPTION_NAMESPACE, m) {
  m.def("box_iou_rotated(Tensor boxes1, Tensor boxes2, bool iof, bool aligned, bool clockwise) -> Tensor");
  m.def(
      "nms_rotated(Tensor boxes, Tensor order, Tensor? labels, float iou_threshold, bool clockwise) -> Tensor");

  m.def(
      "roi_align_rotated(Tensor features, Tensor rois, int rows, int columns, float spatial_scale, "
      "int sampling_ratio, bool aligned, bool clockwise) -> Tensor");
  m.def(
      "roi_align_rotated_backward(Tensor grad, Tensor rois, SymInt batch, SymInt height, SymInt width, "
      "float spatial_scale, int sampling_ratio, bool aligned, bool clockwise) -> Tensor");

  m.def("carafe(Tensor features, Tensor masks, int kernel_size, int groups, int scale_factor) -> Tensor");
  m.def(
      "carafe_backward(Tensor grad, Tensor features, Tensor masks, int kernel_size, int groups, int scale_factor) "
      "-> (Tensor, Tensor)");

  m.def(
      "ms_deform_attn(Tensor value, int[] spatial_shapes, Tensor sampling_locations, Tensor attention_weights) "
      "-> Tensor");
  m.def(
      "ms_deform_attn_backward(Tensor grad, Tensor value, int[] spatial_shapes, Tensor sampling_locations, "
      "Tensor attention_weights) -> (Tensor, Tensor, Tensor)");

  m.def("furthest_point_sample(Tensor points, int num_points, bool skip_near_origin) -> Tensor");
  m.def(
      "ball_query(Tensor points, Tensor centres, float min_square, float max_square, int num_samples) -> Tensor");
  m.def("knn(Tensor points, Tensor centres, int k) -> (Tensor, Tensor)");

  m.def("trilinear_gather(Tensor table, Tensor position, int[] shape) -> Tensor");
  m.def("trilinear_scatter(Tensor values, Tensor position, int[] shape) -> Tensor");
  m.def(
      "sample_rays(Tensor start, Tensor unit, Tensor count, Tensor xyz_min, Tensor xyz_max, Tensor? mask, "
      "Tensor? mask_scale, Tensor? mask_shift, float stepdist) -> (Tensor, Tensor, Tensor)");
  m.def("alphas_to_weights(Tensor alpha, Tensor offsets, float min_transmittance) -> (Tensor, Tensor, Tensor)");
  m.def(
      "alphas_to_weights_backward(Tensor grad_weights, Tensor grad_last, Tensor alpha, Tensor weights, "
      "Tensor transmittance, Tensor last, Tensor offsets, float min_transmittance) -> Tensor");
  m.def(
      "total_variation_add_grad_(Tensor grid, Tensor(a!) grad, float weight_x, float weight_y, float weight_z, "
      "bool dense) -> ()");
  m.def(
      "masked_adam_(Tensor(a!) parameter, Tensor grad, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, Tensor? scale, "
      "float step_size, float beta1, float beta2, float eps, bool skip_zero_grad) -> ()");
  m.def(
      "masked_rmsprop_(Tensor(a!) parameter, Tensor grad, Tensor(b!) square_avg, Tensor mask, float lr, float beta, "
      "float eps) -> ()");
  m.def(
      "hash_grid(Tensor positions, Tensor params, int[] offsets, int[] resolutions, float[] scales) -> Tensor");
  m.def(
      "hash_grid_backward(Tensor grad, Tensor positions, Tensor params, int[] offsets, int[] resolutions, "
      "float[] scales, bool to_positions, bool to_params) -> (Tensor, Tensor)");
}
