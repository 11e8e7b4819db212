// Every launcher, once: the Python module, the stubs of a build without CUDA and the emulation of the tests
// are made from this list. OP(name, struct of arguments, types of its fields in their order).
#pragma once

#include <type_traits>

#include "sal_fast/launch/cam.h"
#include "sal_fast/launch/crop.h"
#include "sal_fast/launch/dice.h"
#include "sal_fast/launch/minmax_normalize.h"
#include "sal_fast/launch/saliency_loss.h"
#include "sal_fast/launch/ssim.h"
#include "sal_fast/launch/topn.h"
#include "sal_fast/launch/uncertainty.h"

// clang-format off
#define SAL_FAST_STRIDES int64_t, int64_t, int64_t, int64_t
#define SAL_FAST_MASK Address, Code, int64_t, int64_t, int64_t, int64_t, int64_t
#define SAL_FAST_LAUNCHERS(OP)                                                                                 \
  OP(cam, CamArgs, Address, Code, int64_t, int64_t, int64_t, Code, int64_t, int64_t, Address, Code, int64_t,   \
     Address, Code, Address, Address, Address, Address)                                                        \
  OP(cam_backward, CamBackwardArgs, Address, Code, int64_t, int64_t, int64_t, Code, int64_t, int64_t, Address, \
     Code, int64_t, Address, Code, Address, Address, Address, Address, Address, Address, Address)              \
  OP(crop_images, CropImagesArgs, Address, int64_t, int64_t, int64_t, int64_t, int64_t, Address, Address,       \
     Address, int64_t, int64_t, int64_t, int64_t, Code, Address)                                               \
  OP(crop_masks, CropMasksArgs, SAL_FAST_MASK, int64_t, Address, Address, int64_t, int64_t, int64_t, Address)   \
  OP(dice, DiceArgs, int64_t, SAL_FAST_MASK, SAL_FAST_MASK, double, Address)                                   \
  OP(minmax_normalize, MinmaxNormalizeArgs, Address, Code, int64_t, int64_t, Address)                          \
  OP(minmax_normalize_backward, MinmaxNormalizeBackwardArgs, Address, Code, int64_t, int64_t, Address, Address) \
  OP(uncertainty, UncertaintyArgs, Address, Code, int64_t, int64_t, int64_t, Code, Address)                    \
  OP(uncertainty_backward, UncertaintyBackwardArgs, Address, Code, int64_t, int64_t, int64_t, Code, Address,   \
     int64_t, Address)                                                                                         \
  OP(saliency_loss, SaliencyLossArgs, Address, Code, int64_t, int64_t, int64_t, Address, Code, int64_t, \
     int64_t, int64_t, int64_t, int64_t, Address, int64_t, int64_t, int64_t, double, Code, Code, double, \
     Address, Address, Address) \
  OP(topn_mask, TopnMaskArgs, Address, Code, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, Address,     \
     int64_t, int64_t, Code, Address, Address)                                                                 \
  OP(topn_dice, TopnDiceArgs, Address, Code, int64_t, int64_t, int64_t, SAL_FAST_MASK, int64_t, int64_t,       \
     double, Address, Address, Address)                                                                        \
  OP(ssim, SsimArgs, Address, Address, Code, int64_t, int64_t, int64_t, int64_t, SAL_FAST_STRIDES,             \
     SAL_FAST_STRIDES, int64_t, double, Code, double, Address, Address, Address, Address)
// clang-format on

namespace sal_fast {

// A pointer and an enum of a field, before their type is known.
struct Address {
  uintptr_t value;
  template <typename T>
  operator T*() const {
    return reinterpret_cast<T*>(value);
  }
};

struct Code {
  int value;
  template <typename Enum, typename = std::enable_if_t<std::is_enum_v<Enum>>>
  operator Enum() const {
    return static_cast<Enum>(value);
  }
};

template <typename... Fields>
struct Signature {};

}  // namespace sal_fast
