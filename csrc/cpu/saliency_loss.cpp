#include "sal_fast/launch/saliency_loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "capability.h"
#include "parallel.h"
#include "sal_fast/ssim.h"
#include "saliency_loss_rows.h"
#include "scratch.h"

namespace sal_fast {
namespace {

// Rounds weights that sum to 1 as gaussian_taps rounds its own, so that flat windows have no variance.
void round_weights(std::vector<double>& weights) {
  constexpr double kParts = 1 << 24;
  double left = 1;
  for (double& weight : weights) left -= weight = std::round(weight * kParts) / kParts;
  *std::max_element(weights.begin(), weights.end()) += left;
}

// The bilinear enlargement with half-pixel centres. The outer half pixels are clamped.
struct Enlargement {
  Enlargement(int64_t from_size, int64_t to_size) : from(to_size), weight(to_size) {
    for (int64_t i = 0; i < to_size; ++i) {
      const double at = (i + 0.5) * static_cast<double>(from_size) / static_cast<double>(to_size) - 0.5;
      const double inside = std::min(std::max(at, 0.0), static_cast<double>(from_size - 1));
      from[i] = static_cast<int32_t>(
          std::min<int64_t>(static_cast<int64_t>(inside), std::max<int64_t>(from_size - 2, 0)));
      weight[i] = 1.0 - (inside - from[i]);
    }
  }
  std::vector<int32_t> from;
  std::vector<double> weight;
};

struct BandedRows {
  BandedRows(int64_t rows, int64_t columns) : all(rows, std::vector<double>(columns)) {}

  // The rows of weights. Only the columns between the first and the last non-zero are kept.
  Banded banded() {
    width = 1;
    for (auto& row : all) {
      round_weights(row);
      const auto non_zero = [](double x) { return x != 0; };
      const auto begin = std::find_if(row.begin(), row.end(), non_zero);
      const auto end = std::find_if(row.rbegin(), row.rend(), non_zero).base();
      first.push_back(begin == row.end() ? 0 : static_cast<int32_t>(begin - row.begin()));
      count.push_back(begin == row.end() ? 0 : static_cast<int32_t>(end - begin));
      width = std::max<int64_t>(width, count.back());
    }
    coefficients.assign(all.size() * width, 0.0f);
    for (size_t r = 0; r < all.size(); ++r)
      for (int32_t i = 0; i < count[r]; ++i)
        coefficients[r * width + i] = static_cast<float>(all[r][first[r] + i]);
    return {coefficients.data(), first.data(), count.data(), width};
  }

  std::vector<std::vector<double>> all;
  std::vector<float> coefficients;
  std::vector<int32_t> first, count;
  int64_t width = 1;
};

}  // namespace

void saliency_loss_cpu(const SaliencyLossArgs& args, int threads) {
  std::vector<float> taps(args.window);
  gaussian_taps(args.window, args.sigma, taps.data());
  const Enlargement rows(args.cam_height, args.height), columns(args.cam_width, args.width);

  const int64_t pad = padding(args.window, args.border);
  const int64_t positions = ssim_positions(args.height, args.window, args.border);
  BandedRows mean(positions, cam_lines(args)), square(positions, 2 * cam_lines(args));
  for (int64_t v = 0; v < positions; ++v)
    for (int64_t k = 0; k < args.window; ++k) {
      const int64_t row = padded_index(v + k - pad, args.height, pad, args.border);
      if (row < 0) {
        mean.all[v][args.cam_height] += taps[k];
        square.all[v][2 * args.cam_height] += taps[k];
        continue;
      }
      const int32_t i = rows.from[row];
      const double a = rows.weight[row], b = 1.0 - a;
      mean.all[v][i] += taps[k] * a;
      square.all[v][2 * i] += taps[k] * a * a;
      if (b == 0) continue;
      mean.all[v][i + 1] += taps[k] * b;
      square.all[v][2 * i + 1] += taps[k] * 2 * a * b;
      square.all[v][2 * i + 2] += taps[k] * b * b;
    }

  const std::vector<float> row_weight(rows.weight.begin(), rows.weight.end());
  const std::vector<float> column_weight(columns.weight.begin(), columns.weight.end());
  const SaliencyTables tables{taps.data(),          rows.from.data(), row_weight.data(), columns.from.data(),
                              column_weight.data(), mean.banded(),    square.banded()};

  const auto run = SAL_FAST_DISPATCH(saliency_loss_rows);
  const int64_t scratch_size = SAL_FAST_DISPATCH(saliency_loss_scratch)(args);
  // Small images take a lane each, so that a piece of work has as many as the widest vector.
  const int64_t together = saliency_loss_lanes(args) ? 16 : 1;
  const int64_t cost = 8 * args.height * args.width + args.target_height * args.target_width / 8;
  const int64_t pieces = (args.images + together - 1) / together;
  parallel_for(pieces, together * cost, threads, [&](int64_t begin, int64_t end) {
    const Scratch scratch(scratch_size);
    run(args, tables, begin * together, std::min(end * together, args.images), scratch.data());
  });
}

}  // namespace sal_fast
