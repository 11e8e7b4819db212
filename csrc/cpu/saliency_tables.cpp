#include "saliency_tables.h"

#include <algorithm>
#include <cmath>

namespace sal_fast {
namespace {

using Weights = std::vector<std::vector<double>>;

// The place of pixel i, of `to` along a side, among `from` cells. Centres lie at half pixels, and places are
// clamped at the ends.
struct Place {
  Place(int64_t i, int64_t from, int64_t to) {
    const double at = (i + 0.5) * static_cast<double>(from) / static_cast<double>(to) - 0.5;
    const double inside = std::clamp(at, 0.0, static_cast<double>(from - 1));
    cell = std::min(static_cast<int32_t>(inside), std::max(static_cast<int32_t>(from) - 2, 0));
    weight = 1.0 - (inside - cell);
  }
  int32_t cell;
  double weight;
};

std::vector<Source> sources(int64_t from, int64_t to) {
  std::vector<Source> all;
  for (int64_t i = 0; i < to; ++i) {
    const Place place(i, from, to);
    const int32_t next = from > 1 ? place.cell + 1 : place.cell;
    all.push_back({place.cell, next, static_cast<float>(place.weight)});
  }
  return all;
}

// Rounds weights that sum to 1 as gaussian_taps rounds its own, so that flat windows have no variance.
void round_weights(std::vector<double>& weights) {
  constexpr double kParts = 1 << 24;
  double left = 1;
  for (double& weight : weights) left -= weight = std::round(weight * kParts) / kParts;
  *std::max_element(weights.begin(), weights.end()) += left;
}

// Only the columns between the first and the last non-zero of a row are kept.
Banded banded(Weights rows) {
  Banded matrix;
  const auto non_zero = [](double x) { return x != 0; };
  for (auto& row : rows) {
    round_weights(row);
    const auto begin = std::find_if(row.begin(), row.end(), non_zero);
    const auto end = std::find_if(row.rbegin(), std::make_reverse_iterator(begin), non_zero).base();
    matrix.first.push_back(static_cast<int32_t>(begin - row.begin()));
    matrix.count.push_back(static_cast<int32_t>(end - begin));
    matrix.width = std::max<int64_t>(matrix.width, end - begin);
  }
  matrix.coefficients.assign(rows.size() * matrix.width, 0.0f);
  for (size_t r = 0; r < rows.size(); ++r)
    std::copy_n(rows[r].begin() + matrix.first[r], matrix.count[r],
                matrix.coefficients.begin() + r * matrix.width);
  return matrix;
}

}  // namespace

SaliencyTables::SaliencyTables(const SaliencyLossArgs& args)
    : taps(args.window),
      rows(sources(args.cam_height, args.height)),
      columns(sources(args.cam_width, args.width)) {
  gaussian_taps(args.window, args.sigma, taps.data());
  const int64_t pad = padding(args.window, args.border), lines = cam_lines(args);
  const int64_t positions = ssim_positions(args.height, args.window, args.border);
  Weights means(positions, std::vector<double>(lines)), squares(positions, std::vector<double>(2 * lines));
  for (int64_t v = 0; v < positions; ++v)
    for (int64_t k = 0; k < args.window; ++k) {
      const int64_t row = padded_index(v + k - pad, args.height, pad, args.border);
      if (row < 0) {
        means[v][args.cam_height] += taps[k];
        squares[v][2 * args.cam_height] += taps[k];
        continue;
      }
      const Place place(row, args.cam_height, args.height);
      const int32_t i = place.cell;
      const double a = place.weight, b = 1.0 - a;
      means[v][i] += taps[k] * a;
      squares[v][2 * i] += taps[k] * a * a;
      if (b == 0) continue;
      means[v][i + 1] += taps[k] * b;
      squares[v][2 * i + 1] += taps[k] * 2 * a * b;
      squares[v][2 * i + 2] += taps[k] * b * b;
    }
  mean = banded(std::move(means));
  square = banded(std::move(squares));
}

}  // namespace sal_fast
