// Compiled once per instruction set, with SAL_FAST_ISA naming it: see CMakeLists.txt.
//
// A thread takes a few images at a time, as many as its cache keeps. It reads their features from memory for
// the pooled features and the maps of all heads, computes the losses, and reads the features again, from the
// cache, for the gradients through the maps. What an image adds to the gradients is kept, and added up in the
// order of the images, so that the bits do not depend on the threads. Derivation:
// sal_fast/ops/head_step/README.md.
#include "head_step_features.h"
#include "parallel.h"
#include "saliency_loss_lanes.h"
// These come first: the templates below find their overloads by ordinary lookup.
#include "sal_fast/head_step.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {
namespace {

// The features of so many bytes stay in the cache between their two reads.
constexpr int64_t kCacheBytes = 5 << 16;
constexpr int64_t kMostTogether = 16;

// Partial sums are over so many images, because rounding grows with the number of terms. This also bounds the
// memory for what images add to the gradients.
constexpr int64_t kChunk = 256;

// The heads that one pass over an image serves.
constexpr int kHeadsAtOnce = 2;

// Images of the batch, and what they hand on to the sums over them. Row h * kChunk + i belongs to head h and
// image i of the chunk.
struct Chunk {
  Chunk(const HeadStepArgs& args, float* memory) : args(args), arena(memory) {}

  int64_t row_of(int64_t i) const { return stored_image(args, first + i); }
  int64_t label(int64_t i) const { return label_of(args, row_of(i)); }
  const float* weight_of(int64_t head, int64_t k) const {
    return args.weight + (head * args.classes + k) * args.channels;
  }
  float* logits_of(int64_t head, int64_t i) const {
    return args.logits + (head * args.images + first + i) * args.classes;
  }
  float* cam_of(int64_t head, int64_t i) const {
    return args.cam + (head * args.images + first + i) * args.height * args.width;
  }
  int64_t at(int64_t head, int64_t i) const { return head * kChunk + i; }
  float* slopes_of(int64_t head, int64_t i) const { return slopes + at(head, i) * args.classes; }

  const HeadStepArgs& args;
  Arena arena;
  int64_t first = 0, count = 0;
  Rows pooled = arena.rows(kChunk, args.channels);
  // The gradient through the map to a class's row of the weight, and that class, or -1 for none.
  Rows terms = arena.rows(args.heads * kChunk, args.channels);
  int32_t* class_of_term = reinterpret_cast<int32_t*>(arena.row(args.heads * kChunk));
  float* slopes = arena.row(args.heads * kChunk * args.classes);  // the gradient to the logits
  // The two terms of the loss, each with its factor of alpha.
  float* classification = arena.row(args.heads * kChunk);
  float* saliency = arena.row(args.heads * kChunk);
};

// Logits, and the classification term of the loss.
class Classifier {
 public:
  Classifier(const HeadStepArgs& args, const Chunk& chunk) : args_(args), chunk_(chunk) {}

  // Makes a tile of logits at a time. A tile that reaches beyond the last image or class repeats the last
  // one.
  void make_logits(int64_t head, int64_t begin, int64_t end) const {
    constexpr int kImages = 4, kClasses = kLanes == 16 ? 4 : 2;
    for (int64_t k = 0; k < args_.classes; k += kClasses)
      for (int64_t i = begin; i < end; i += kImages) {
        const float *x[kImages], *w[kClasses];
        float products[kImages * kClasses];
        for (int a = 0; a < kImages; ++a) x[a] = chunk_.pooled[i + a < end ? i + a : end - 1];
        for (int b = 0; b < kClasses; ++b)
          w[b] = chunk_.weight_of(head, k + b < args_.classes ? k + b : args_.classes - 1);
        products_of(x, w, args_.channels, products);
        for (int a = 0; a < kImages && i + a < end; ++a)
          for (int b = 0; b < kClasses && k + b < args_.classes; ++b)
            chunk_.logits_of(head, i + a)[k + b] =
                products[a * kClasses + b] + args_.bias[head * args_.classes + k + b];
      }
  }

  // The cross-entropy of an image, and its gradient to the logits, each times alpha.
  void classify(int64_t head, int64_t i) const {
    const int64_t label = chunk_.label(i), classes = args_.classes;
    float* const slopes = chunk_.slopes_of(head, i);
    float& value = chunk_.classification[chunk_.at(head, i)];
    const float alpha = args_.alpha[head];
    value = label < 0 ? kInfinity - kInfinity : 0.0f;
    for (int64_t k = 0; k < classes; ++k) slopes[k] = value;
    if (label < 0 || alpha == 0.0f) return;

    const float* const logits = chunk_.logits_of(head, i);
    const TargetShares shares(args_);
    Vec most = load_padded(logits, classes);
    for (int64_t k = kLanes; k < classes; k += kLanes)
      most = larger(load_padded(logits + k, classes - k), most);
    const float largest = max(most);
    Vec exponentials{}, total{}, distance{};
    for (int64_t k = 0; k < classes; k += kLanes) {
      const Vec below = load_first(logits + k, classes - k) - largest;
      const Vec q = share_of(shares, label, k);
      const Vec exponent = below < Vec{} + kLowestExponent ? Vec{} + kLowestExponent : below;
      const Vec exponential = first_lanes(exp_clamped(exponent), classes - k);
      exponentials += exponential;
      total += q;
      distance += q == Vec{} ? Vec{} : q * below;
      store_partial(exponential, slopes + k, classes - k);
    }
    const float sum_of_exponentials = sum(exponentials), sum_of_shares = sum(total);
    value = alpha * (sum_of_shares * std::log(sum_of_exponentials) - sum(distance));
    const float scale = alpha / static_cast<float>(args_.images);
    const float by_exponential = sum_of_shares / sum_of_exponentials;
    for (int64_t k = 0; k < classes; k += kLanes) {
      const Vec probability = by_exponential * load_first(slopes + k, classes - k);
      store_partial(scale * (probability - share_of(shares, label, k)), slopes + k, classes - k);
    }
  }

 private:
  // The shares of classes k, k + 1, ... in the target of an image.
  Vec share_of(const TargetShares& shares, int64_t label, int64_t k) const {
    const int64_t left = args_.classes - k;
    const Vec weight =
        args_.class_weight ? load_first(args_.class_weight + k, left) : first_lanes(Vec{} + 1.0f, left);
    const auto own = lane_numbers() == Bits{} + static_cast<uint32_t>(label - k);
    return weight * (own ? Vec{} + (shares.own + shares.others) : Vec{} + shares.others);
  }

  const HeadStepArgs& args_;
  const Chunk& chunk_;
};

void fill_with_nan(float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = kInfinity - kInfinity;
}

// One thread's work on a few images of a chunk.
class Group {
 public:
  Group(const HeadStepArgs& args, const SaliencyLossArgs& maps, const Chunk& chunk, const float* taps,
        float* memory)
      : args_(args), maps_(maps), chunk_(chunk), taps_(taps), arena_(memory) {}

  int64_t used() const { return arena_.used(); }

  // As many images as the cache keeps.
  static int64_t together(const HeadStepArgs& args) {
    const int64_t bytes = args.height * args.width * args.channels * (args.dtype == DType::float32 ? 4 : 2);
    const int64_t fit = kCacheBytes / bytes;
    return fit < 1 ? 1 : (fit < kMostTogether ? fit : kMostTogether);
  }

  // Does images [begin, end) of the chunk, `together` at a time.
  void run(int64_t begin, int64_t end) {
    end_ = end;
    for (int64_t first = begin; first < end; first += count_) {
      begin_ = first;
      count_ = end - first < together(args_) ? end - first : together(args_);
      with_scalar(args_.dtype, [&](auto zero) { run_as<decltype(zero)>(first, first + count_); });
    }
  }

 private:
  template <typename scalar>
  void run_as(int64_t begin, int64_t end) {
    const bool pool_first = pools_first(args_);
    for (int64_t i = begin; i < end; ++i) {
      std::memset(chunk_.pooled[i], 0, padded(args_.channels) * sizeof(float));
      if (pool_first && chunk_.row_of(i) >= 0)
        features_of<scalar>(i, i + 1).template read<0, true>(nullptr, nullptr, chunk_.pooled[i], block_);
      if (!pool_first) make_maps<scalar>(i, true);
      finish_pool(i);
    }
    for (int64_t h = 0; h < args_.heads; ++h) {
      classifier_.make_logits(h, begin, end);
      for (int64_t i = begin; i < end; ++i) classifier_.classify(h, i);
    }
    for (int64_t i = begin; pool_first && i < end; ++i) make_maps<scalar>(i, false);
    compare(begin, end);
    for (int64_t i = begin; i < end; ++i) make_terms<scalar>(i);
  }

  float* slopes_of(int64_t head, int64_t i) const { return slopes_[head * kMostTogether + i - begin_]; }

  // The features of image i, and those of the image `later` of this thread's.
  template <typename scalar>
  Features<scalar> features_of(int64_t i, int64_t later) const {
    const auto* all = static_cast<const scalar*>(args_.features);
    const int64_t size = pixels_ * args_.channels, next = later < end_ ? chunk_.row_of(later) : -1;
    const scalar* const own = all + chunk_.row_of(i) * size;
    return {own, pixels_, args_.channels, next < 0 ? own : all + next * size};
  }

  void finish_pool(int64_t i) const {
    float* const pooled = chunk_.pooled[i];
    if (chunk_.row_of(i) < 0) return fill_with_nan(pooled, args_.channels);
    for (int64_t n = 0; n < args_.channels; n += kLanes)
      store(load(pooled + n) / static_cast<float>(pixels_), pooled + n);
  }

  // The class whose map is made, or -1 if the label is no class.
  int64_t map_class(int64_t head, int64_t i) const {
    const int64_t label = chunk_.label(i);
    if (args_.cam_class == CamClass::labelled || label < 0) return label;
    const float* logits = chunk_.logits_of(head, i);
    int64_t best = 0;
    for (int64_t k = 1; k < args_.classes; ++k)
      if (logits[k] > logits[best]) best = k;
    return best;
  }

  // Calls visit(n, weight) for the vectors of the weights that the channels of an image have in a class's
  // map.
  template <typename Visit>
  void for_each_weight(int64_t head, int64_t i, int64_t k, Visit visit) const {
    const float* const row = chunk_.weight_of(head, k);
    for (int64_t n = 0; n < args_.channels; n += kLanes)
      visit(n, channel_weight(load_first(row + n, args_.channels - n), load(chunk_.pooled[i] + n),
                              args_.probe, pixels_));
  }

  // The maps of all heads, and the sum over pixels if it is wanted.
  template <typename scalar>
  void make_maps(int64_t i, bool pool) {
    for (int64_t h = 0; h < args_.heads && chunk_.row_of(i) < 0; ++h)
      fill_with_nan(chunk_.cam_of(h, i), pixels_);
    if (chunk_.row_of(i) < 0) return;
    const Features<scalar> features = features_of<scalar>(i, i + 1);
    for (int64_t h = 0; h < args_.heads; h += kHeadsAtOnce, pool = false) {
      const bool pair = h + 1 < args_.heads;
      float *weights[kHeadsAtOnce], *maps[kHeadsAtOnce];
      for (int64_t j = 0; j < 1 + pair; ++j) {
        weights[j] = weights_[j];
        maps[j] = chunk_.cam_of(h + j, i);
        const int64_t k = map_class(h + j, i);
        if (k < 0) fill_with_nan(weights[j], args_.channels);
        if (k >= 0)
          for_each_weight(h + j, i, k, [&](int64_t n, const auto& w) { store(w.value, weights[j] + n); });
      }
      const auto read = [&](auto heads, auto with_pool) {
        features.template read<heads.value, with_pool.value>(weights, maps, chunk_.pooled[i], block_);
      };
      const auto read_pool = [&](auto heads) {
        pool ? read(heads, std::true_type{}) : read(heads, std::false_type{});
      };
      pair ? read_pool(std::integral_constant<int, 2>{}) : read_pool(std::integral_constant<int, 1>{});
      for (int64_t j = 0; j < 1 + pair; ++j)
        for (int64_t p = 0; p < pixels_; ++p) maps[j][p] = map_value(maps[j][p], args_.probe);
    }
  }

  // The saliency losses of the images, and their gradients to the maps, a lane for each image and head.
  void compare(int64_t begin, int64_t end) {
    int64_t images[kLanes], heads[kLanes], filled = 0;
    const auto flush = [&] {
      lanes_.run();
      for (int64_t lane = 0; lane < filled; ++lane) {
        const int64_t h = heads[lane], i = images[lane];
        const float factor = 1.0f - args_.alpha[h];
        chunk_.saliency[chunk_.at(h, i)] = factor * lanes_.value(lane);
        lanes_.gradient(lane, factor / static_cast<float>(args_.images), slopes_of(h, i));
      }
      filled = 0;
    };
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = chunk_.row_of(i);
      bool averaged = false;
      for (int64_t h = 0; h < args_.heads; ++h) {
        const int64_t at = chunk_.at(h, i), k = map_class(h, i);
        const bool compared = has_target(args_, row) && k >= 0 && args_.alpha[h] < 1.0f;
        chunk_.saliency[at] = 0.0f;
        chunk_.class_of_term[at] = compared ? static_cast<int32_t>(k) : -1;
        if (!compared) continue;
        if (!averaged) average_target(maps_, row, sums_, target_);
        averaged = true;
        if (filled == 0) lanes_.clear();
        images[filled] = i;
        heads[filled] = h;
        lanes_.put(filled++, chunk_.cam_of(h, i), target_);
        if (filled == kLanes) flush();
      }
    }
    if (filled) flush();
  }

  // Makes the terms that the image adds to the weight's gradient through its maps.
  template <typename scalar>
  void make_terms(int64_t i) {
    float *slopes[kHeadsAtOnce], *sums[kHeadsAtOnce];
    int64_t heads[kHeadsAtOnce], filled = 0;
    const auto flush = [&] {
      const Features<scalar> features = features_of<scalar>(i, i + count_);
      filled == 2 ? features.template weigh<2>(slopes, sums) : features.template weigh<1>(slopes, sums);
      for (int64_t j = 0; j < filled; ++j)
        for_each_weight(
            heads[j], i, chunk_.class_of_term[chunk_.at(heads[j], i)],
            [&](int64_t n, const auto& w) { store(load(sums[j] + n) * w.by_weight, sums[j] + n); });
      filled = 0;
    };
    for (int64_t h = 0; h < args_.heads; ++h) {
      if (chunk_.class_of_term[chunk_.at(h, i)] < 0) continue;
      const float* const cam = chunk_.cam_of(h, i);
      heads[filled] = h;
      slopes[filled] = slopes_of(h, i);
      for (int64_t p = 0; p < pixels_; ++p)
        slopes[filled][p] = sum_gradient(slopes[filled][p], cam[p], args_.probe);
      sums[filled++] = chunk_.terms[chunk_.at(h, i)];
      if (filled == kHeadsAtOnce) flush();
    }
    if (filled) flush();
  }

  const HeadStepArgs& args_;
  const SaliencyLossArgs& maps_;
  const Chunk& chunk_;
  const Classifier classifier_{args_, chunk_};
  const float* const taps_;
  Arena arena_;
  const int64_t pixels_ = args_.height * args_.width;
  const Rows weights_ = arena_.rows(kHeadsAtOnce, args_.channels);
  float* const block_ = arena_.row(args_.channels);
  float* const sums_ = arena_.row(args_.target_width);
  float* const target_ = arena_.row(pixels_);
  const Rows slopes_ = arena_.rows(args_.heads * kMostTogether, pixels_);  // the gradients to the maps
  float* const of_lanes_ = arena_.row(LaneImages(maps_, true, nullptr, nullptr).used());
  LaneImages lanes_{maps_, true, taps_, of_lanes_};
  int64_t begin_ = 0, count_ = 0;  // the images at hand
  int64_t end_ = 0;                // of all images of this thread
};

// Adds what the images of a chunk add to some rows and columns of a head's weight: through the logits, and
// through the maps.
class WeightGradient {
 public:
  static constexpr int kClasses = 4, kVectors = kLanes == 16 ? 4 : 2;
  static constexpr int64_t kColumns = kVectors * kLanes;

  WeightGradient(const HeadStepArgs& args, const Chunk& chunk) : args_(args), chunk_(chunk) {}

  int64_t class_tiles() const { return (args_.classes + kClasses - 1) / kClasses; }
  int64_t column_tiles() const { return (args_.channels + kColumns - 1) / kColumns; }
  int64_t tiles() const { return args_.heads * class_tiles() * column_tiles(); }

  void run(int64_t tile) const {
    const int64_t head = tile / (class_tiles() * column_tiles());
    const int64_t k = tile / column_tiles() % class_tiles() * kClasses;
    const int64_t c = tile % column_tiles() * kColumns;
    if (args_.alpha[head] > 0.0f) through_logits(head, k, c);
    if (args_.alpha[head] < 1.0f) through_maps(head, k, c);
  }

 private:
  // Calls visit(v, n, count) for the vectors of a tile's row, column n with `count` values.
  template <typename Visit>
  void for_each_vector(int64_t c, Visit visit) const {
    for (int v = 0; v < kVectors && c + v * kLanes < args_.channels; ++v) {
      const int64_t n = c + v * kLanes, left = args_.channels - n;
      visit(v, n, left < kLanes ? left : kLanes);
    }
  }

  void through_logits(int64_t head, int64_t k, int64_t c) const {
    constexpr int kSums = kClasses * kVectors;
    Vec sums[kSums] = {};
    // A tile may reach beyond the last column or class. There it repeats the first column or the last class,
    // and nobody uses those sums.
    int64_t offset[kVectors], own[kClasses];
    for (int v = 0; v < kVectors; ++v) offset[v] = c + v * kLanes < args_.channels ? c + v * kLanes : c;
    for (int j = 0; j < kClasses; ++j) own[j] = k + j < args_.classes ? k + j : args_.classes - 1;
    for (int64_t i = 0; i < chunk_.count; ++i) {
      const float *const pooled = chunk_.pooled[i], *const slopes = chunk_.slopes_of(head, i);
      Vec values[kVectors];
      float factors[kClasses];
      for (int v = 0; v < kVectors; ++v) values[v] = load(pooled + offset[v]);
      for (int j = 0; j < kClasses; ++j) factors[j] = slopes[own[j]];
#pragma GCC unroll 16
      for (int j = 0; j < kSums; ++j) sums[j] += factors[j / kVectors] * values[j % kVectors];
    }
    for (int j = 0; j < kClasses && k + j < args_.classes; ++j) {
      float* const out = args_.grad_weight + (head * args_.classes + k + j) * args_.channels;
      for_each_vector(c, [&](int v, int64_t n, int64_t count) {
        store_partial(load_first(out + n, count) + sums[j * kVectors + v], out + n, count);
      });
    }
  }

  void through_maps(int64_t head, int64_t k, int64_t c) const {
    for (int64_t i = 0; i < chunk_.count; ++i) {
      const int64_t at = chunk_.at(head, i), own = chunk_.class_of_term[at];
      if (own < k || own >= k + kClasses) continue;
      float* const out = args_.grad_weight + (head * args_.classes + own) * args_.channels;
      for_each_vector(c, [&](int, int64_t n, int64_t count) {
        store_partial(load_first(out + n, count) + load(chunk_.terms[at] + n), out + n, count);
      });
    }
  }

  const HeadStepArgs& args_;
  const Chunk& chunk_;
};

// Adds the rest of a chunk: to the gradient of the biases, and to the losses.
void add_biases_and_losses(const HeadStepArgs& args, const Chunk& chunk, double* losses) {
  for (int64_t h = 0; h < args.heads; ++h)
    for (int64_t i = 0; i < chunk.count; ++i) {
      const int64_t at = chunk.at(h, i);
      losses[h] += static_cast<double>(chunk.classification[at]) + static_cast<double>(chunk.saliency[at]);
      const float* const slopes = chunk.slopes_of(h, i);
      float* const out = args.grad_bias + h * args.classes;
      for (int64_t k = 0; k < args.classes; ++k) out[k] += slopes[k];
    }
}

}  // namespace

void head_step_cpu(const HeadStepArgs& args, int threads) {
  const SaliencyLossArgs maps = saliency_args(args);
  const Scratch taps(maps.window);
  gaussian_taps(maps.window, maps.sigma, taps);
  const Scratch memory(Chunk(args, nullptr).arena.used());
  Chunk chunk(args, memory);
  const int64_t own_memory = Group(args, maps, chunk, taps, nullptr).used();
  const WeightGradient gradient(args, chunk);
  const Scratch loss_memory(2 * args.heads);
  double* const losses = reinterpret_cast<double*>(static_cast<float*>(loss_memory));
  std::memset(losses, 0, args.heads * sizeof(double));
  std::memset(args.grad_weight, 0, args.heads * args.classes * args.channels * sizeof(float));
  std::memset(args.grad_bias, 0, args.heads * args.classes * sizeof(float));

  const int64_t together = Group::together(args), values = args.height * args.width * args.channels;
  for (chunk.first = 0; chunk.first < args.images; chunk.first += kChunk) {
    const int64_t left = args.images - chunk.first;
    chunk.count = left < kChunk ? left : kChunk;
    // A thread takes several groups one after the other, if there are enough for all, so that the next one's
    // features are on their way while it computes.
    const int64_t share = chunk.count / (2 * together * threads);
    const int64_t piece = together * (share < 1 ? 1 : (share < 4 ? share : 4));
    parallel_for((chunk.count + piece - 1) / piece, piece * values, threads, [&](int64_t begin, int64_t end) {
      const Scratch own(own_memory);
      const int64_t last = end * piece;
      Group(args, maps, chunk, taps, own).run(begin * piece, last < chunk.count ? last : chunk.count);
    });
    parallel_for(gradient.tiles(), chunk.count * WeightGradient::kClasses * WeightGradient::kColumns, threads,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t tile = begin; tile < end; ++tile) gradient.run(tile);
                 });
    add_biases_and_losses(args, chunk, losses);
  }
  for (int64_t h = 0; h < args.heads; ++h)
    args.loss[h] = static_cast<float>(losses[h] / static_cast<double>(args.images > 0 ? args.images : 1));
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
