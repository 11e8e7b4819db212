// A training step of linear heads on frozen features. Derivation: sal_fast/ops/head_step/README.md.
#pragma once

#include "sal_fast/cam.h"
#include "sal_fast/launch/head_step.h"
#include "sal_fast/saliency_loss.h"

namespace sal_fast {

inline namespace SAL_FAST_ISA {

// Returns the saliency loss's arguments that describe the human maps. The caller sets the CAMs and the
// results.
inline SaliencyLossArgs saliency_args(const HeadStepArgs& args) {
  SaliencyLossArgs result{};
#define SAL_FAST_COPY_FIELD(type, name) result.name = args.name;
  SAL_FAST_SALIENCY_TARGET(SAL_FAST_COPY_FIELD)
#undef SAL_FAST_COPY_FIELD
  result.cam_height = args.height;
  result.cam_width = args.width;
  return result;
}

// Whether the map of an image is known only after something else of its features: the predicted class needs
// the logits, and gradcam++ the pooled features.
SAL_FAST_HD inline bool pools_first(const HeadStepArgs& args) {
  return args.cam_class == CamClass::predicted || args.probe == Probe::gradcampp;
}

// The stored image that stands at place `i` of the batch, or -1 if there is none.
SAL_FAST_HD inline int64_t stored_image(const HeadStepArgs& args, int64_t i) {
  const int64_t row = args.rows ? args.rows[i] : i;
  return row >= 0 && row < args.stored ? row : -1;
}

// The label of a stored image, or -1 if that is no class.
SAL_FAST_HD inline int64_t label_of(const HeadStepArgs& args, int64_t row) {
  const int64_t label = row < 0 ? -1 : args.labels[row];
  return label >= 0 && label < args.classes ? label : -1;
}

// Whether a stored image has a map that can be looked at.
SAL_FAST_HD inline bool has_target(const HeadStepArgs& args, int64_t row) {
  return row >= 0 && args.target && (!args.has_map || args.has_map[row]);
}

// With the shares q_k that the classes have in the target of an image, the cross-entropy is
// sum_k q_k (log sum_j exp(z_j) - z_k), and its derivative by z_k is (sum_j q_j) softmax(z)_k - q_k.
struct TargetShares {
  float own;     // of the label
  float others;  // of every class

  SAL_FAST_HD explicit TargetShares(const HeadStepArgs& args)
      : own(static_cast<float>(1.0 - args.label_smoothing)),
        others(static_cast<float>(args.label_smoothing / static_cast<double>(args.classes))) {}
};

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
