#pragma once

#include "sal_fast/launch.h"

namespace sal_fast {

// The numbers of sal_fast/ops/badge: candidates that are drawn at a time, and rows of a partial sum.
constexpr int kBadgeBatch = 64;
constexpr int64_t kBadgeChunk = 1024;

// A part of a packed row has so many more numbers than columns that whole vectors cover it. They are zeros.
constexpr int64_t packed_part(int64_t columns) {
  return columns / 16 * 16 + 16;
}

// The first three are those of DType.
enum class FloatType : int { float32, float16, bfloat16, float64 };

// clang-format off
// The pool, whose rows have a gradient (p - onehot(argmax p)) x e each.
#define SAL_FAST_BADGE_ROWS(FIELD)                                                                \
  FIELD(const void*, probs)      /* [count, classes] */                                           \
  FIELD(FloatType, probs_type)                                                                    \
  FIELD(int64_t, probs_row_stride)                                                                \
  FIELD(int64_t, probs_column_stride)                                                             \
  FIELD(int64_t, classes)                                                                         \
  FIELD(const void*, features)   /* [count, width] */                                             \
  FIELD(FloatType, features_type)                                                                 \
  FIELD(int64_t, features_row_stride)                                                             \
  FIELD(int64_t, features_column_stride)                                                          \
  FIELD(int64_t, width)

// Finds the norms and the likeliest classes of the rows begin..end-1.
#define SAL_FAST_BADGE_SURVEY(FIELD)                                                              \
  SAL_FAST_BADGE_ROWS(FIELD)                                                                      \
  FIELD(int64_t, begin)                                                                           \
  FIELD(int64_t, end)                                                                             \
  FIELD(int32_t*, tops)          /* [count] */                                                    \
  FIELD(double*, norms)          /* [count]: |g|^2 */                                             \
  FIELD(double*, largest)        /* [2]: raised to the largest |p| and |e|; infinity for NaN */

// Draws a batch of candidates by the weights, and accepts those that D^2 sampling would draw.
#define SAL_FAST_BADGE_BLOCK(FIELD)                                                               \
  SAL_FAST_BADGE_ROWS(FIELD)                                                                      \
  FIELD(const int32_t*, tops)    /* [count] */                                                    \
  FIELD(const double*, norms)    /* [count] */                                                    \
  FIELD(double*, weights)        /* [chunks * kBadgeChunk], zeros from count on */                \
  FIELD(double*, sums)           /* [chunks]: of the weights */                                   \
  FIELD(int64_t, chunks)                                                                          \
  FIELD(const double*, numbers)  /* [kBadgeBatch, 2]: each draws a candidate, and accepts it */   \
  FIELD(int64_t*, picks)         /* [most] */                                                     \
  FIELD(int64_t, packed)         /* picks that are packed already */                              \
  FIELD(int64_t, picked)                                                                          \
  FIELD(int64_t, most)                                                                            \
  FIELD(bool, wide)              /* packed rows are doubles, not floats */                        \
  FIELD(void*, taken)            /* [most, packed_part(classes) + packed_part(width)] */          \
  FIELD(double*, rests)          /* [most]: what a float loses of p - 1 */                        \
  FIELD(double, error)           /* of a packed product, relative to the sum of two squared norms */ \
  FIELD(double, vanishing)       /* and absolute, where products vanish */                        \
  FIELD(int64_t*, accepted)      /* [1]: the number of new picks; -1 if all weights are zero */
// clang-format on

SAL_FAST_STRUCT(BadgeSurveyArgs, SAL_FAST_BADGE_SURVEY)
SAL_FAST_STRUCT(BadgeBlockArgs, SAL_FAST_BADGE_BLOCK)

}  // namespace sal_fast
