// Every launcher, once. The Python module, the stubs of a build without CUDA and the emulation of the tests
// are made from this list, so that a new op is one line here and one include.
#pragma once

#include <type_traits>

#include "sal_fast/launch/badge.h"
#include "sal_fast/launch/cam.h"
#include "sal_fast/launch/crop.h"
#include "sal_fast/launch/dice.h"
#include "sal_fast/launch/head_step.h"
#include "sal_fast/launch/minmax_normalize.h"
#include "sal_fast/launch/saliency_loss.h"
#include "sal_fast/launch/ssim.h"
#include "sal_fast/launch/topn.h"
#include "sal_fast/launch/uncertainty.h"

// clang-format off
#define SAL_FAST_LAUNCHERS(OP)                               \
  OP(cam, CamArgs)                                           \
  OP(cam_backward, CamBackwardArgs)                          \
  OP(crop_images, CropImagesArgs)                            \
  OP(crop_masks, CropMasksArgs)                              \
  OP(dice, DiceArgs)                                         \
  OP(head_step, HeadStepArgs)                                \
  OP(minmax_normalize, MinmaxNormalizeArgs)                  \
  OP(minmax_normalize_backward, MinmaxNormalizeBackwardArgs) \
  OP(saliency_loss, SaliencyLossArgs)                        \
  OP(ssim, SsimArgs)                                         \
  OP(topn_dice, TopnDiceArgs)                                \
  OP(topn_mask, TopnMaskArgs)                                \
  OP(uncertainty, UncertaintyArgs)                           \
  OP(uncertainty_backward, UncertaintyBackwardArgs)

// Those of the CPU only: on a GPU torch does the same.
#define SAL_FAST_CPU_LAUNCHERS(OP)   \
  OP(badge_block, BadgeBlockArgs)    \
  OP(badge_survey, BadgeSurveyArgs)
// clang-format on

namespace sal_fast {

// Whether a launcher needs memory on the device beyond its outputs.
template <typename Args, typename = void>
constexpr bool kNeedsWorkspace = false;
template <typename Args>
constexpr bool kNeedsWorkspace<Args, std::void_t<decltype(Args::workspace)>> = true;

}  // namespace sal_fast
