// The second launch beyond 1024 pixels. A block does a tile, and makes the enlarged CAM as it goes. A tile
// gives its part of the loss and, for the cells that it touches, its part of D = U' (dL/dx) U.
#pragma once

#include <type_traits>

#include "saliency_loss_layout.cuh"
#include "saliency_loss_target.cuh"

namespace sal_fast {
namespace {

// A sample of a side: its place between the touched cells, and its bin of the target.
struct Sample {
  Between at;
  Bin bin;
  bool inside;  // not a zero
};

template <typename Shape, bool kTables>
struct TileMemory {
  static constexpr int kTile = Shape::kTile, kSide = Shape::kSide;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr int kGroups = kThreads / kTile;                  // threads that share a column
  static constexpr int kBlurs = kTables ? 3 : 5;                    // y, xy, yy, x, xx
  static constexpr int kFields = kTables ? 1 : 3;                   // slopes by xy, x, xx
  static constexpr int kAlongCells = kTables ? kCells : kSide + 1;  // and a `next`
  static constexpr int kStrips = 4;  // of a row of samples, when it is summed into cells

  // The lines of a tile: the rows of cells, enlarged or blurred along.
  using Along = float[kAlongCells][Shape::kPitch];
  using Partial = Coefficients[kGroups][kBand][kTile];
  using Field = float[kTile][Shape::kTilePitch];  // a slope at the tile's positions
  using WideField = float[kTile][Shape::kPitch];  // after the blur back along the rows
  struct Fields {
    Field narrow[kFields];
    WideField wide[kFields];
  };
  struct RowSums {
    Coefficients shares[kSide];  // of four touched cells in each column
    Coefficients at[kStrips][kSide];
  };
  // These are used in turn.
  union Buffer {
    Along along;
    BlurredRows<Shape> blurred[kBlurs];
    Fields fields;
    RowSums row_sums;
    typename std::conditional<kTables, Partial, char>::type partial;
  };
  struct Tables {
    // E[x], E[xx] and E[x times the next row], for a touched row of cells at a position. Later the gradients
    // to those, and to the enlarged row.
    Coefficients lines[kCells][kTile];
    int first[kGroups];  // touched cell of a group
  };
  struct None {};

  Samples<Shape> x, y;
  Sample rows[kSide], columns[kSide];
  Buffer buffer;
  typename std::conditional<kTables, Tables, None>::type tables;
};

// The similarity of two windows and its derivatives by their moments, without the terms that the other mean
// is a factor of. It takes one division, and is accurate to an ulp.
struct Similarity {
  float value;
  float mean_x;
  float square;
  float cross;
};

__device__ Similarity similarity_of(const SsimTerms<float>& t, float scale) {
  const float inverse = reciprocal(t.luminance_under * t.structure_under);
  const float inverse_luminance = inverse * t.structure_under;
  const float inverse_structure = inverse * t.luminance_under;
  const float luminance = t.luminance_over * inverse_luminance;
  const float structure = t.structure_over * inverse_structure;
  const float value = luminance * structure;
  return {value, 2.0f * scale * inverse_luminance * structure * (t.mean_y - luminance * t.mean_x),
          -scale * value * inverse_structure, 2.0f * scale * luminance * inverse_structure};
}

// The terms of a window in which y has one value, shifted.
__device__ SsimTerms<float> flat_terms(float x, float xx, float y, const SsimConstants& c) {
  const float mean_x = x + c.shift, mean_y = y + c.shift;
  return {mean_x,
          mean_y,
          2.0f * mean_x * mean_y + c.c1,
          mean_x * mean_x + mean_y * mean_y + c.c1,
          c.c2,
          larger(0.0f, xx - x * x) + c.c2};
}

// Makes the moments by the rows of cells at each column of the tile. `table` holds its columns' coefficients,
// and `cam` starts at its first cell.
template <typename Memory>
__device__ void blur_lines(Memory& memory, const Coefficients* table, const float* cam, int pitch,
                           const Region& down, const Region& across) {
  for (int item = threadIdx.x; item < down.cells * Memory::kTile; item += Memory::kThreads) {
    const int i = item / Memory::kTile, q = item % Memory::kTile;
    const float *row = cam + i * pitch, *below = row + pitch;
    float a = row[0], b = below[0];
    Coefficients line{};
    for (int l = 0; l < across.cells; ++l) {
      const Coefficients c = table[q * kCells + l];
      const float next = row[l + 1], b_next = below[l + 1];
      line.at[kMean] += c.at[kMean] * a;
      line.at[kSquare] += c.at[kSquare] * (a * a);
      line.at[kSquare] += c.at[kProduct] * (a * next);
      line.at[kProduct] += c.at[kSquare] * (a * b);
      line.at[kProduct] += c.at[kProduct] * (0.5f * (a * b_next + next * b));
      a = next;
      b = b_next;
    }
    memory.tables.lines[i][q] = line;
  }
}

// Makes the gradient to the touched cells from that to the rows of cells, with four threads for each cell.
// Adds to `out`, which has `out_pitch` cells in a row.
template <typename Memory>
__device__ void gather_lines(const Memory& memory, const Coefficients* table, const float* cam, int pitch,
                             const Region& down, const Region& across, bool add, int out_pitch, float* out) {
  constexpr int kParts = 4, kEach = Memory::kTile / kParts;
  const auto& lines = memory.tables.lines;
  const int part = static_cast<int>(threadIdx.x) % kParts;
  for (int first = 0; first < down.cells * kCells; first += Memory::kThreads / kParts) {
    const int cell = first + static_cast<int>(threadIdx.x) / kParts;
    const int i = cell / kCells, l = cell % kCells;
    const bool touched = i < down.cells && l < across.cells;
    float sum = 0;
    if (touched) {
      const float *row = cam + i * pitch + l, *above = row - pitch, *below = row + pitch;
      // The factors at E[xx] and at E[x times the row above, below], for this cell and its neighbours in the
      // row.
      const float square[3] = {row[-1], 2.0f * row[0], row[1]};
      const float up[3] = {0.5f * above[-1], above[0], 0.5f * above[1]};
      const float to_below[3] = {0.5f * below[-1], below[0], 0.5f * below[1]};
      for (int q = part * kEach; q < (part + 1) * kEach; ++q) {
        const Coefficients c = table[q * kCells + l], line = lines[i][q];
        const float product = i > 0 ? lines[i - 1][q].at[kProduct] : 0.0f;
        const float weights[3] = {l > 0 ? table[q * kCells + l - 1].at[kProduct] : 0.0f, c.at[kSquare],
                                  c.at[kProduct]};
        sum += c.at[kMean] * line.at[kMean];
        sum += c.at[kPixel] * line.at[kPixel];
#pragma unroll
        for (int w = 0; w < 3; ++w)
          sum +=
              weights[w] * (square[w] * line.at[kSquare] + to_below[w] * line.at[kProduct] + up[w] * product);
      }
    }
#pragma unroll
    for (int lanes = 1; lanes < kParts; lanes *= 2) sum += __shfl_xor_sync(kAllLanes, sum, lanes);
    if (part == 0 && touched) out[i * out_pitch + l] = sum + (add ? out[i * out_pitch + l] : 0.0f);
  }
}

// Writes to x what the samples get from the slopes by the moments. A thread takes a strip of samples, which
// depends on the window positions first - window + 1, ... of this tile.
template <typename Shape, typename Memory, typename Tap>
__device__ void blur_back(Memory& memory, int window, int side, Tap tap) {
  constexpr int kTile = Shape::kTile, kStrip = Shape::kStrip, kFields = Memory::kFields;
  constexpr int kStrips = (Shape::kSide + kStrip - 1) / kStrip;
  auto& narrow = memory.buffer.fields.narrow;
  auto& wide = memory.buffer.fields.wide;
  for (int item = threadIdx.x; item < kFields * kTile * kStrips; item += Shape::kThreads) {
    const int row = item % kTile, f = item / kTile % kFields, first = item / (kFields * kTile) * kStrip;
    float sums[kStrip] = {};
#pragma unroll
    for (int i = 0; i < kStrip + window - 1; ++i) {
      const int position = first + i - (window - 1);
      const float slope = position >= 0 && position < kTile ? narrow[f][row][position] : 0.0f;
#pragma unroll
      for (int s = 0; s < kStrip; ++s)
        if (s + window - 1 - i >= 0 && s + window - 1 - i < window)
          sums[s] += tap(s + window - 1 - i) * slope;
    }
#pragma unroll
    for (int s = 0; s < kStrip; ++s)
      if (first + s < side) wide[f][row][first + s] = sums[s];
  }
  __syncthreads();
  for (int item = threadIdx.x; item < side * kStrips; item += Shape::kThreads) {
    const int c = item % side, first = item / side * kStrip;
    float sums[kFields][kStrip] = {};
#pragma unroll
    for (int i = 0; i < kStrip + window - 1; ++i) {
      const int position = first + i - (window - 1);
      const bool inside = position >= 0 && position < kTile;
#pragma unroll
      for (int f = 0; f < kFields; ++f) {
        const float slope = inside ? wide[f][position][c] : 0.0f;
#pragma unroll
        for (int s = 0; s < kStrip; ++s)
          if (s + window - 1 - i >= 0 && s + window - 1 - i < window)
            sums[f][s] += tap(s + window - 1 - i) * slope;
      }
    }
#pragma unroll
    for (int s = 0; s < kStrip; ++s) {
      const int r = first + s;
      if (r >= side) continue;
      float slope = sums[0][s] * memory.y[r][c];
      if constexpr (kFields == 3) slope += sums[1][s] + 2.0f * memory.x[r][c] * sums[2][s];
      memory.x[r][c] = memory.rows[r].inside && memory.columns[c].inside ? slope : 0.0f;
    }
  }
}

// Computes out = U' x U over the tile's samples, four columns of cells at a time. The buffer must be free.
// The samples may have been written just before.
template <typename Memory>
__device__ void gather_samples(Memory& memory, const Region& down, const Region& across, int pitch,
                               float* out) {
  constexpr int kStrips = Memory::kStrips, kParts = 8;
  auto& sums = memory.buffer.row_sums;
  const int side = down.samples, length = (side + kStrips - 1) / kStrips;
  for (int cell = 0; cell < across.cells; cell += 4) {
    for (int c = threadIdx.x; c < side; c += Memory::kThreads)
      for (int l = 0; l < 4; ++l) sums.shares[c].at[l] = share(memory.columns[c].at, cell + l);
    __syncthreads();
    for (int item = threadIdx.x; item < side * kStrips; item += Memory::kThreads) {
      const int r = item % side, strip = item / side;
      const int end = (strip + 1) * length < side ? (strip + 1) * length : side;
      Coefficients of_cells{};
      for (int c = strip * length; c < end; ++c) {
        const float slope = memory.x[r][c];
        const Coefficients shares = sums.shares[c];
#pragma unroll
        for (int l = 0; l < 4; ++l) of_cells.at[l] += shares.at[l] * slope;
      }
      sums.at[strip][r] = of_cells;
    }
    __syncthreads();
    const int part = static_cast<int>(threadIdx.x) % kParts;
    for (int first = 0; first < 4 * down.cells; first += Memory::kThreads / kParts) {
      const int item = first + static_cast<int>(threadIdx.x) / kParts, k = item / 4, l = item % 4;
      float sum = 0;
      if (k < down.cells) {
        for (int r = part; r < side; r += kParts) {
          float of_row = 0;
#pragma unroll
          for (int strip = 0; strip < kStrips; ++strip) of_row += sums.at[strip][r].at[l];
          sum += share(memory.rows[r].at, k) * of_row;
        }
      }
#pragma unroll
      for (int lanes = 1; lanes < kParts; lanes *= 2) sum += __shfl_xor_sync(kAllLanes, sum, lanes);
      if (part == 0 && k < down.cells && cell + l < across.cells) out[k * pitch + cell + l] = sum;
    }
    __syncthreads();
  }
}

template <typename Shape, bool kTables>
__global__ void __launch_bounds__(Shape::kThreads, 4)
    tiles_kernel(SaliencyLossArgs args, Taps<Shape::kTaps> taps, SsimConstants constants, Layout layout) {
  using Memory = TileMemory<Shape, kTables>;
  constexpr int kTile = Shape::kTile, kEach = Shape::kEach;
  __shared__ Memory memory;

  const int window = Shape::kFixed ? Shape::kTaps : static_cast<int>(args.window);
  const int side = kTile + window - 1;
  const int pad = layout.sides[0].pad();
  const bool same = same_size(args);
  const bool words = same && in_words(args);
  const auto tap = [&](int k) { return taps.at[k]; };
  const int group = threadIdx.x / kTile, column = Shape::column();

  const auto do_tile = [&](int64_t image, int tile_row, int tile_column) {
    const Extremes extremes = layout.extremes(image);
    if (extremes.counts == 0) return;
    const bool wants_gradient = args.grad && extremes.flat == 0;
    const int corner[2] = {tile_row * kTile, tile_column * kTile};
    const bool similar = args.kind == SaliencyKind::ssim_l1 && corner[0] < layout.sides[0].positions &&
                         corner[1] < layout.sides[1].positions;
    const Region down = layout.region(0, corner[0], kTile), across = layout.region(1, corner[1], kTile);
    const Bin rows = layout.sides[0].pixels(down), columns = layout.sides[1].pixels(across);
    const float* const cam = layout.cam(image);
    const int cam_width = layout.sides[1].cells;
    const float* const framed = layout.framed(image) +
                                (down.first_cell + Layout::kFrame) * layout.framed_width() +
                                across.first_cell + Layout::kFrame;
    const auto* const down_table = layout.table(0) + corner[0] * kCells;
    const auto* const across_table = layout.table(1) + corner[1] * kCells;
    const int first_cell =  // of this thread's positions, among the touched
        layout.sides[0].first_cell(corner[0] + group * kEach,
                                   [&](int pixel) { return layout.places(0)[pixel]; }) -
        down.first_cell;
    const auto human_of = [&](float value) {
      return normalized(value, extremes.human_low, extremes.human_high, extremes.human_inverse);
    };
    const auto normal_of = [&](float z) {
      return normalized(z, extremes.low, extremes.high, extremes.inverse);
    };
    const float corner_value = words ? target_at(args, image, rows.begin, columns.begin) : 0.0f;
    float flat_human = human_of(corner_value);

    // Other threads may still read `lines` of the tile before this one, and nothing else of it.
#pragma unroll
    for (int way = 0; way < 2; ++way) {  // by other warps
      const int i = static_cast<int>(threadIdx.x) - way * Shape::kThreads / 2;
      if (i < 0 || i >= side) continue;
      const Region& region = way == 0 ? down : across;
      const Axis& axis = layout.sides[way];
      const int place = region.first + i, pixel = axis.pixel(place);
      Sample sample{{0, 0, 0.0f}, {0, 0}, pixel >= 0};
      if (pixel >= 0) {
        sample.at = layout.places(way)[pixel];
        sample.bin = target_bin(same, pixel, way == 0 ? args.target_height : args.target_width, axis.length);
      } else if (axis.border == Border::zero) {
        sample.at = axis.outside(place);
      }
      sample.at.cell -= region.first_cell;
      sample.at.next -= region.first_cell;
      (way == 0 ? memory.rows : memory.columns)[i] = sample;
    }
    __syncthreads();
    bool mixed = !kTables;  // whether the human map has more than one value here
    if (words) {
      const bool zeros = layout.sides[0].border == Border::zero &&
                         (rows.end - rows.begin < side || columns.end - columns.begin < side);
      const bool differs = differs_from(args, image, rows, columns, corner_value, Shape::kThreads);
      mixed |= __syncthreads_or(differs || (zeros && flat_human != 0)) != 0;
    }
    const bool has_samples = !words || mixed;
    // Enlarges the rows of touched cells along the tile's samples, or along its own pixels.
    const auto enlarge_along = [&](int begin, int count) {
      for (int i = threadIdx.x; i < down.cells * count; i += Shape::kThreads) {
        const int k = i / count, c = begin + i % count;
        const int cell = down.first_cell + k;
        float value = 0;
        if (cell >= 0 && cell < layout.sides[0].cells && memory.columns[c].inside) {
          const Between& at = memory.columns[c].at;
          const float* row = cam + cell * cam_width + across.first_cell;
          value = blend(row[at.cell], row[at.next], at.weight);
        }
        memory.buffer.along[k][c] = value;
      }
    };
    if (has_samples) {
      enlarge_along(0, side);
    } else {
      enlarge_along(pad, kTile);
    }
    if constexpr (kTables)
      if (similar) blur_lines(memory, across_table, framed, layout.framed_width(), down, across);
    __syncthreads();
    bool graded = false;  // and others than 0 and 1
    if (has_samples) {
      for (int i = threadIdx.x; i < side * side; i += Shape::kThreads) {
        const int r = i / side, c = i % side;
        const Sample &row = memory.rows[r], &sample = memory.columns[c];
        float normal = 0, human = 0;
        if (row.inside && sample.inside) {
          normal = normal_of(
              blend(memory.buffer.along[row.at.cell][c], memory.buffer.along[row.at.next][c], row.at.weight));
          human = human_of(human_at(args, same, image, row.bin, sample.bin));
        }
        memory.x[r][c] = normal - constants.shift;
        memory.y[r][c] = human - constants.shift;
        graded |= human != 0 && human != 1;
      }
      graded = __syncthreads_or(graded) != 0;
    }
    if (kTables && !words) {
      flat_human = memory.y[0][0] + constants.shift;
      bool differs = false;
      for (int i = threadIdx.x; i < side * side; i += Shape::kThreads)
        differs |= memory.y[i / side][i % side] != memory.y[0][0];
      mixed = __syncthreads_or(differs) != 0;
    }

    // The slopes at this thread's positions and pixels: by E[x], E[xx] and E[xy], and of the difference.
    float mean_x[kEach] = {}, xx[kEach] = {}, cross[kEach] = {}, slope[kEach] = {}, value = 0,
          differences = 0;
    const auto rows_here = [&](int Axis::* end) {  // of this thread's, how many lie before the ends
      return corner[1] + column < layout.sides[1].*end ? layout.sides[0].*end - corner[0] - Shape::row(0) : 0;
    };
    const int positions_here = rows_here(&Axis::positions), pixels_here = rows_here(&Axis::length);
    if (similar) {
      float similarity = 0;
      float y[kEach] = {}, yy[kEach] = {}, xy[kEach] = {};
      if (mixed) {
        // The blurred rows take the place of the lines: the vote on `graded` stands between.
        const auto blur = [&](auto count) {
          constexpr int kCount = decltype(count)::value;
          auto& blurred = reinterpret_cast<BlurredRows<Shape>(&)[kCount]>(memory.buffer.blurred);
          blur_rows<Shape, kCount>(
              window, tap,
              [&](int r, int c, float (&values)[kCount]) {
                const float x = memory.x[r][c], y = memory.y[r][c];
                values[0] = y;
                values[1] = x * y;
                if constexpr (kCount > 2) values[2] = y * y;
                if constexpr (kCount > 3) values[3] = x;
                if constexpr (kCount > 3) values[4] = x * x;
              },
              blurred, side);
          __syncthreads();
          float sums[kCount][kEach] = {};
          blur_columns<Shape>(window, tap, blurred, sums);
#pragma unroll
          for (int i = 0; i < kEach; ++i) {
            y[i] = sums[0][i];
            xy[i] = sums[1][i];
            yy[i] = constants.shift * constants.shift;  // of 0 and 1
            if constexpr (kCount > 2) yy[i] = sums[2][i];
            if constexpr (kCount > 3) mean_x[i] = sums[3][i];
            if constexpr (kCount > 3) xx[i] = sums[4][i];
          }
        };
        if constexpr (!kTables) {
          blur(std::integral_constant<int, 5>{});
        } else if (graded) {
          blur(std::integral_constant<int, 3>{});
        } else {
          blur(std::integral_constant<int, 2>{});
        }
      }
      if constexpr (kTables) {
        for (int j = 0; j < layout.band; ++j) {
          const int k = first_cell + j;
          if (k >= down.cells) break;
          const Coefficients line = memory.tables.lines[k][column];
#pragma unroll
          for (int i = 0; i < kEach; ++i) {
            const Coefficients c = down_table[Shape::row(i) * kCells + k];
            mean_x[i] += c.at[kMean] * line.at[kMean];
            xx[i] += c.at[kSquare] * line.at[kSquare];
            xx[i] += c.at[kProduct] * line.at[kProduct];
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const float mx = mean_x[i], my = mixed ? y[i] : flat_human - constants.shift;
        const SsimMoments<float> moments{mx, my, xx[i], yy[i], xy[i]};
        const SsimTerms<float> terms =
            mixed ? ssim_terms(moments, constants) : flat_terms(mx, xx[i], my, constants);
        const Similarity of = similarity_of(terms, -layout.per_position);
        const bool inside = i < positions_here;
        similarity += inside ? of.value : 0.0f;
        // Where y has one value, what goes through E[xy] = y E[x] and through the covariance cancels.
        mean_x[i] = of.mean_x - 2.0f * of.square * mx - (mixed ? of.cross * my : 0.0f);
        xx[i] = of.square;
        cross[i] = inside ? of.cross : 0.0f;
        if (!kTables && !inside) mean_x[i] = xx[i] = 0;  // whose coefficients are 0 with tables
      }
      value = -layout.per_position * similarity;
    }
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int r = Shape::row(i) + pad, c = column + pad;
      if (i >= pixels_here) continue;
      float difference;
      if (mixed) {
        difference = memory.x[r][c] - memory.y[r][c];
      } else {
        const Between& at = memory.rows[r].at;
        difference =
            normal_of(blend(memory.buffer.along[at.cell][c], memory.buffer.along[at.next][c], at.weight)) -
            flat_human;
      }
      differences += difference_value(difference, args.kind);
      slope[i] = layout.per_pixel * difference_slope(difference, args.kind);
    }
    value += layout.per_pixel * differences;
    float* const out = layout.tile(image, tile_row, tile_column);
    value = merge_lanes<Shape::kThreads>(value, Sum{});
    if (threadIdx.x == 0) out[0] = value;
    if (!wants_gradient) return;

    const int pitch = layout.sides[1].touched;
    const bool through_samples = !kTables || (similar && mixed);
    if (through_samples) {
      if (similar) {
#pragma unroll
        for (int i = 0; i < kEach; ++i) {
          auto& narrow = memory.buffer.fields.narrow;
          narrow[0][Shape::row(i)][column] = cross[i];
          if constexpr (!kTables) narrow[1][Shape::row(i)][column] = mean_x[i];
          if constexpr (!kTables) narrow[2][Shape::row(i)][column] = xx[i];
        }
        __syncthreads();
        blur_back<Shape>(memory, window, side, tap);
      } else {
        for (int i = threadIdx.x; i < side * side; i += Shape::kThreads) memory.x[i / side][i % side] = 0;
      }
      __syncthreads();
      if constexpr (!kTables) {
#pragma unroll
        for (int i = 0; i < kEach; ++i)
          if (i < pixels_here) memory.x[Shape::row(i) + pad][column + pad] += slope[i];
      }
      gather_samples(memory, down, across, pitch, out + 1);
    }
    if constexpr (kTables) {
      auto& tables = memory.tables;
      auto& partial = memory.buffer.partial;
      for (int j = 0; j < layout.band; ++j) {
        const int k = first_cell + j;
        if (k >= down.cells) break;
        Coefficients sums{};
#pragma unroll
        for (int i = 0; i < kEach; ++i) {
          const Coefficients c = down_table[Shape::row(i) * kCells + k];
          sums.at[kMean] += c.at[kMean] * mean_x[i];
          sums.at[kSquare] += c.at[kSquare] * xx[i];
          sums.at[kProduct] += c.at[kProduct] * xx[i];
          sums.at[kPixel] += c.at[kPixel] * slope[i];
        }
        partial[group][j][column] = sums;
      }
      if (column == 0) tables.first[group] = first_cell;
      __syncthreads();
      for (int item = threadIdx.x; item < down.cells * kTile; item += Shape::kThreads) {
        const int k = item / kTile, q = item % kTile;
        Coefficients sums{};
#pragma unroll
        for (int g = 0; g < Memory::kGroups; ++g) {
          const int j = k - tables.first[g];
          if (j < 0 || j >= layout.band) continue;
          const Coefficients part = partial[g][j][q];
#pragma unroll
          for (int f = 0; f < 4; ++f) sums.at[f] += part.at[f];
        }
        tables.lines[k][q] = sums;
      }
      __syncthreads();
      gather_lines(memory, across_table, framed, layout.framed_width(), down, across, through_samples, pitch,
                   out + 1);
    }
  };
  for (int64_t image = blockIdx.z; image < args.images; image += gridDim.z)
    for (int tile_column = blockIdx.x; tile_column < layout.sides[1].tiles; tile_column += gridDim.x)
      do_tile(image, static_cast<int>(blockIdx.y), tile_column);
}

}  // namespace
}  // namespace sal_fast
