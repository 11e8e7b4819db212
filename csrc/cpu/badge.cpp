// Compiled once per instruction set, with SAL_FAST_ISA naming it: see CMakeLists.txt.
//
// Whatever decides about a pick is a float64 sum in a fixed order, in which no multiplication and addition is
// fused (-ffp-contract=off). So the picks are the same for every instruction set and number of threads. The
// products that only tell which distances are worth such a sum are in any order: their error is in the
// bounds.
//
// Work of a block: kBadgeBatch * picks * (classes + width) multiply-adds of floats, which dominate, and some
// five float64 distances a candidate. Bytes moved: the packed picks are read once, the candidates are
// gathered.
#include <algorithm>
#include <limits>
#include <mutex>
#include <vector>

#include "doubles.h"
#include "parallel.h"
#include "scratch.h"
// vec.h comes first: the templates below find its overloads by ordinary lookup.
#include "sal_fast/launch/badge.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {
namespace {

constexpr int64_t kBatch = kBadgeBatch;
constexpr int64_t kTile = 32;   // picks whose products are made before distances are
constexpr int64_t kGroup = 16;  // candidates that a thread packs together: a line of the cache
constexpr double kInfinite = std::numeric_limits<double>::infinity();

// 64 units in the last place: as ROUNDING of sal_fast/ops/badge/reference.py.
constexpr double kRounding = 64 * std::numeric_limits<double>::epsilon();

template <typename Run>
auto with_float(FloatType type, Run run) {
  if (type == FloatType::float64) return run(double{});
  return with_scalar(static_cast<DType>(type), run);
}

// Packed rows
// ---------------------------------------------------------------------------------------------------------

template <typename scalar, typename Number>
void convert(const scalar* from, int64_t stride, int64_t count, Number* to) {
  if constexpr (std::is_same_v<scalar, double>) {
    for (int64_t j = 0; j < count; ++j) to[j] = static_cast<Number>(from[j * stride]);
  } else {
    for (int64_t j = 0; j < count; j += kLanes) {
      const Vec x = load_strided(from + j * stride, stride, count - j);
      for (int i = 0; i < kLanes; ++i) to[j + i] = x[i];
    }
  }
}

// The probabilities, then the features, each followed by zeros. Every float type fits into `Number` exactly.
template <typename Number, typename Args>
void read_row(const Args& args, int64_t row, Number* to) {
  const int64_t classes = packed_part(args.classes);
  std::fill(to, to + classes + packed_part(args.width), Number{});
  with_float(args.probs_type, [&](auto zero) {
    const auto* from = static_cast<const decltype(zero)*>(args.probs) + row * args.probs_row_stride;
    convert(from, args.probs_column_stride, args.classes, to);
  });
  with_float(args.features_type, [&](auto zero) {
    const auto* from = static_cast<const decltype(zero)*>(args.features) + row * args.features_row_stride;
    convert(from, args.features_column_stride, args.width, to + classes);
  });
}

// A row of which the likeliest class, `top`, is taken off. What a float loses there is the rest.
template <typename Number>
struct Gradient {
  const Number* values;
  int32_t top;
  double rest;
  double norm;
};

template <typename Number>
double take_off(Number* row, int32_t top) {
  const double exact = static_cast<double>(row[top]) - 1;
  row[top] = static_cast<Number>(exact);
  return exact - static_cast<double>(row[top]);
}

// The sum of products in 16 running sums, in an order that no instruction set changes. `count` is a multiple
// of 16.
template <typename Number>
double dot(const Number* a, const Number* b, int64_t count) {
  typedef double FourDoubles __attribute__((vector_size(4 * sizeof(double))));
  typedef Number FourNumbers __attribute__((vector_size(4 * sizeof(Number))));
  FourDoubles sums[4] = {};
  for (int64_t j = 0; j < count; j += 16) {
    for (int i = 0; i < 4; ++i) {
      FourNumbers x, y;
      std::memcpy(&x, a + j + 4 * i, sizeof x);
      std::memcpy(&y, b + j + 4 * i, sizeof y);
      sums[i] += __builtin_convertvector(x, FourDoubles) * __builtin_convertvector(y, FourDoubles);
    }
  }
  const FourDoubles total = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  return (total[0] + total[1]) + (total[2] + total[3]);
}

// The sum of the weights of a chunk, in an order likewise.
inline double sum_of_chunk(const double* weights) {
  double sums[8] = {};
  for (int64_t j = 0; j < kBadgeChunk; j += 8)
    for (int i = 0; i < 8; ++i) sums[i] += weights[j + i];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// g.g' = (q.q')(e.e')
template <typename Number, typename Args>
double inner(const Args& args, const Gradient<Number>& a, const Gradient<Number>& b) {
  const int64_t classes = packed_part(args.classes), width = packed_part(args.width);
  double residuals = dot(a.values, b.values, classes);
  residuals += a.rest * b.values[a.top] + b.rest * a.values[b.top];
  if (a.top == b.top) residuals += a.rest * b.rest;
  return residuals * dot(a.values + classes, b.values + classes, width);
}

template <typename Number, typename Args>
double squared_distance(const Args& args, const Gradient<Number>& a, const Gradient<Number>& b) {
  const double scale = a.norm + b.norm;
  const double squared = scale - 2 * inner(args, a, b);
  return squared <= kRounding * scale ? 0.0 : squared;  // zero but for rounding
}

// The survey
// ----------------------------------------------------------------------------------------------------------

// The largest absolute value. The bits of a NaN are above those of infinity.
template <typename Number>
double magnitude(const Number* values, int64_t count) {
  using Word = std::conditional_t<sizeof(Number) == 4, uint32_t, uint64_t>;
  Word most = 0;
  for (int64_t j = 0; j < count; ++j) {
    Word bits;
    std::memcpy(&bits, values + j, sizeof bits);
    bits &= ~Word{} >> 1;
    most = bits > most ? bits : most;
  }
  Number largest;
  std::memcpy(&largest, &most, sizeof largest);
  return largest < kInfinite ? static_cast<double>(largest) : kInfinite;
}

template <typename Number>
void survey(const BadgeSurveyArgs& args, int64_t begin, int64_t end, double (&largest)[2]) {
  const int64_t classes = packed_part(args.classes), width = packed_part(args.width);
  std::vector<Number> memory(classes + width);
  Number* const row = memory.data();
  for (int64_t i = begin; i < end; ++i) {
    read_row(args, i, row);
    largest[0] = std::max(largest[0], magnitude(row, classes));
    largest[1] = std::max(largest[1], magnitude(row + classes, width));
    Gradient<Number> gradient{row, 0, 0, 0};
    if (args.classes) {
      gradient.top = static_cast<int32_t>(std::max_element(row, row + args.classes) - row);
      gradient.rest = take_off(row, gradient.top);
    }
    args.tops[i] = gradient.top;
    args.norms[i] = inner(args, gradient, gradient);
  }
}

// A block
// -------------------------------------------------------------------------------------------------------------

// The first place at which the running sum of the values exceeds the target, or the last that raises it.
struct Place {
  int64_t index;
  double before;  // the sum of those before it
};

Place place_of(const double* values, int64_t count, double target) {
  Place last{0, 0};
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double next = sum + values[i];
    if (next != sum) last = {i, sum};
    if (next > target) break;
    sum = next;
  }
  return last;
}

// Lanes of the packed numbers, as wide as Vec.
template <typename Number>
struct LanesOf {
  typedef Number type __attribute__((vector_size(sizeof(Vec))));
};

template <typename Lanes, typename Number>
void read(const Number* from, Lanes& to) {
  std::memcpy(&to, from, sizeof to);
}

template <typename Lanes, typename Number>
void write(const Lanes& from, Number* to) {
  std::memcpy(to, &from, sizeof from);
}

// products[r][i] is the product of row r with column i of a matrix [count, kBatch].
template <int kRows, typename Number>
void multiply(const Number* rows, int64_t stride, const Number* columns, int64_t count,
              Number (*products)[kBatch]) {
  using Lanes = typename LanesOf<Number>::type;
  constexpr int kWide = sizeof(Lanes) / sizeof(Number), kStrip = kLanes == 16 ? 4 : 2;
  for (int64_t strip = 0; strip < kBatch; strip += kStrip * kWide) {
    Lanes sums[kRows][kStrip] = {};
    for (int64_t j = 0; j < count; ++j) {
      Lanes x[kStrip];
      for (int i = 0; i < kStrip; ++i) read(columns + j * kBatch + strip + i * kWide, x[i]);
      for (int r = 0; r < kRows; ++r) {
        const Lanes row = rows[r * stride + j] - Lanes{};  // + would be an addition, because of -0
        for (int i = 0; i < kStrip; ++i) sums[r][i] = multiply_add(row, x[i], sums[r][i]);
      }
    }
    for (int r = 0; r < kRows; ++r)
      for (int i = 0; i < kStrip; ++i) write(sums[r][i], products[r] + strip + i * kWide);
  }
}

template <typename Number>
void multiply(const Number* rows, int64_t number, int64_t stride, const Number* columns, int64_t count,
              Number (*products)[kBatch]) {
  constexpr int kRows = 4;
  int64_t r = 0;
  for (; r + kRows <= number; r += kRows)
    multiply<kRows>(rows + r * stride, stride, columns, count, products + r);
  for (; r < number; ++r) multiply<1>(rows + r * stride, stride, columns, count, products + r);
}

template <typename Number>
class Block {
 public:
  explicit Block(const BadgeBlockArgs& args)
      : args_(args),
        classes_(packed_part(args.classes)),
        length_(classes_ + packed_part(args.width)),
        memory_(2 * kBatch * length_ * sizeof(Number) / sizeof(float)),
        rows_(reinterpret_cast<Number*>(static_cast<float*>(memory_))),
        columns_(rows_ + kBatch * length_),
        taken_(static_cast<Number*>(args.taken)) {
    std::fill(near_, near_ + kBatch, kInfinite);
  }

  void run(int threads) {
    double total = 0;
    for (int64_t chunk = 0; chunk < args_.chunks; ++chunk) total += args_.sums[chunk];
    *args_.accepted = -1;
    if (!(total > 0)) return;
    for (int64_t t = args_.packed; t < args_.picked; ++t)
      args_.rests[t] = pack(args_.picks[t], taken_ + t * length_).rest;
    parallel_for(kBatch / kGroup, kGroup * (kBadgeChunk + length_), threads,
                 [&](int64_t begin, int64_t end) { draw(begin * kGroup, end * kGroup, total); });
    const int64_t tiles = (args_.picked + kTile - 1) / kTile;
    std::mutex mutex;
    parallel_for(tiles, kTile * kBatch * length_, threads, [&](int64_t begin, int64_t end) {
      double near[kBatch];
      for (int64_t tile = begin; tile < end; ++tile) {
        {
          const std::lock_guard<std::mutex> locked(mutex);
          std::copy(near_, near_ + kBatch, near);
        }
        lower(near, tile * kTile, std::min(args_.picked, (tile + 1) * kTile));
        const std::lock_guard<std::mutex> locked(mutex);
        for (int64_t i = 0; i < kBatch; ++i) near_[i] = std::min(near_[i], near[i]);
      }
    });
    accept();
    update();
  }

 private:
  using Lanes = typename LanesOf<Number>::type;
  static constexpr int64_t kWide = sizeof(Lanes) / sizeof(Number);

  Gradient<Number> pack(int64_t row, Number* to) const {
    read_row(args_, row, to);
    if (!args_.classes) return {to, 0, 0, args_.norms[row]};
    return {to, args_.tops[row], take_off(to, args_.tops[row]), args_.norms[row]};
  }

  Gradient<Number> pick(int64_t t) const {
    const int64_t row = args_.picks[t];
    return {taken_ + t * length_, args_.classes ? args_.tops[row] : 0, args_.rests[t], args_.norms[row]};
  }

  // Candidates of these numbers, and their rows, packed one after the other and as columns.
  void draw(int64_t begin, int64_t end, double total) {
    for (int64_t i = begin; i < end; ++i) {
      const double target = args_.numbers[2 * i] * total;
      const Place chunk = place_of(args_.sums, args_.chunks, target);
      const double* const weights = args_.weights + chunk.index * kBadgeChunk;
      index_[i] = chunk.index * kBadgeChunk + place_of(weights, kBadgeChunk, target - chunk.before).index;
      candidates_[i] = pack(index_[i], rows_ + i * length_);
      for (int64_t j = 0; j < length_; ++j) columns_[j * kBatch + i] = candidates_[i].values[j];
    }
  }

  // Lowers the candidates' squared distances to the nearest pick by the picks begin..end-1, at most kTile. A
  // distance is computed where the products leave open whether it is the least.
  void lower(double* near, int64_t begin, int64_t end) const {
    const int64_t count = end - begin;
    alignas(64) Number products[kTile][kBatch], parts[kTile][kBatch];
    const Number* const rows = taken_ + begin * length_;
    multiply(rows, count, length_, columns_, classes_, products);
    multiply(rows + classes_, count, length_, columns_ + classes_ * kBatch, length_ - classes_, parts);
    for (int64_t at = 0; at < kBatch; at += kWide) {
      Number low[kTile], high[kTile];
      for (int64_t r = 0; r < count; ++r) {
        const double norm = args_.norms[args_.picks[begin + r]];
        low[r] = static_cast<Number>(norm * (1 - args_.error));
        high[r] = static_cast<Number>(norm * (1 + args_.error));
      }
      Lanes nearest = Lanes{} + std::numeric_limits<Number>::infinity();
      for (int64_t r = 0; r < count; ++r) {
        Lanes x, y;
        read(products[r] + at, x);
        read(parts[r] + at, y);
        x *= -2 * y;
        write(x, products[r] + at);
        x += high[r];
        nearest = x < nearest ? x : nearest;
      }
      const Lanes limit = limits(near + at, at, nearest);
      for (int64_t r = 0; r < count; ++r) {
        Lanes x;
        read(products[r] + at, x);
        const auto open = ~(x + low[r] > limit);
        if (!any(open)) continue;
        for (int64_t i = 0; i < kWide; ++i)
          if (open[i])
            near[at + i] =
                std::min(near[at + i], squared_distance(args_, candidates_[at + i], pick(begin + r)));
      }
    }
  }

  // In the numbers of `lower`: the bounds without the candidates' norms, from `near` and from the tile.
  Lanes limits(const double* near, int64_t at, Lanes nearest) const {
    Lanes limit;
    for (int64_t i = 0; i < kWide; ++i) {
      const double norm = candidates_[at + i].norm;
      const double known = near[i] - norm * (1 - args_.error) + args_.vanishing;
      const double found = static_cast<double>(nearest[i]) + 2 * (norm * args_.error + args_.vanishing);
      limit[i] = static_cast<Number>(std::min(known, found));
    }
    return limit;
  }

  // A candidate is taken with the chance distance / weight.
  void accept() {
    int64_t end = args_.picked;
    for (int64_t turn = 0; turn < kBatch && end < args_.most; ++turn) {
      const int64_t row = index_[turn];
      if (!(args_.numbers[2 * turn + 1] * args_.weights[row] < near_[turn])) continue;
      args_.picks[end] = row;
      args_.rests[end] = candidates_[turn].rest;
      std::copy(rows_ + turn * length_, rows_ + (turn + 1) * length_, taken_ + end * length_);
      lower(near_, end, end + 1);
      for (int64_t i = 0; i < kBatch; ++i)
        if (index_[i] == row) near_[i] = 0;
      ++end;
    }
    *args_.accepted = end - args_.picked;
  }

  void update() const {
    for (int64_t i = 0; i < kBatch; ++i)
      args_.weights[index_[i]] = std::min(args_.weights[index_[i]], near_[i]);
    for (const int64_t row : index_)
      args_.sums[row / kBadgeChunk] = sum_of_chunk(args_.weights + row / kBadgeChunk * kBadgeChunk);
  }

  const BadgeBlockArgs& args_;
  const int64_t classes_, length_;
  const Scratch memory_;
  Number *const rows_, *const columns_, *const taken_;
  int64_t index_[kBatch];
  Gradient<Number> candidates_[kBatch];
  double near_[kBatch];
};

}  // namespace

void badge_survey_cpu(const BadgeSurveyArgs& args, int threads) {
  const bool wide = args.probs_type == FloatType::float64 || args.features_type == FloatType::float64;
  std::mutex mutex;
  parallel_for(args.end - args.begin, args.classes + args.width, threads, [&](int64_t begin, int64_t end) {
    double largest[2] = {};
    wide ? survey<double>(args, args.begin + begin, args.begin + end, largest)
         : survey<float>(args, args.begin + begin, args.begin + end, largest);
    const std::lock_guard<std::mutex> locked(mutex);
    for (int i = 0; i < 2; ++i) args.largest[i] = std::max(args.largest[i], largest[i]);
  });
}

void badge_block_cpu(const BadgeBlockArgs& args, int threads) {
  args.wide ? Block<double>(args).run(threads) : Block<float>(args).run(threads);
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
