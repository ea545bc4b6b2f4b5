// padim for C++17: objects that free themselves, and exceptions. See padim.h for the meaning of everything.
#ifndef PADIM_HPP
#define PADIM_HPP

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "padim.h"

namespace padim {

// A call has failed.
class Error : public std::runtime_error {
  public:
    explicit Error(PadimStatus status) : std::runtime_error(padim_last_error()), status(status) {}
    const PadimStatus status;
};

inline void check(PadimStatus status) {
    if (status != PADIM_OK) throw Error(status);
}

// Owns a handle. Can be moved, not copied.
template <typename Handle, PadimStatus (*release)(Handle)>
class Owned {
  public:
    explicit Owned(Handle handle) : handle_(handle) {}
    Owned(Owned &&other) noexcept : handle_(std::exchange(other.handle_, Handle{0})) {}
    Owned &operator=(Owned &&other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    Owned(const Owned &) = delete;
    Owned &operator=(const Owned &) = delete;
    ~Owned() {
        if (handle_.id != 0) release(handle_);
    }
    Handle get() const { return handle_; }
    // Gives the handle away.
    Handle take() { return std::exchange(handle_, Handle{0}); }

  private:
    Handle handle_;
};

// A camera's frame. The data must live until the call that takes it returns.
inline PadimFrame frame(const char *format, const std::uint8_t *data, std::size_t length, std::size_t height,
                        std::size_t width, std::size_t stride = 0) {
    return PadimFrame{sizeof(PadimFrame), data, length, format, height, width, stride};
}

class Prediction {
  public:
    explicit Prediction(PadimPrediction handle) : handle_(handle) {
        result_.struct_size = sizeof result_;
        check(padim_prediction_result(handle, &result_));
    }
    const PadimResult &result() const { return result_; }
    float image_score() const { return result_.image_score; }
    bool is_defective() const { return result_.verdict == PADIM_DEFECTIVE; }
    // map_height x map_width scores; valid as long as this object.
    const float *map() const {
        const float *map = nullptr;
        check(padim_prediction_map(handle_.get(), &map));
        return map;
    }
    // original_height x original_width scores.
    std::vector<float> original_map() const {
        std::vector<float> map(result_.original_height * result_.original_width);
        check(padim_prediction_copy_original_map(handle_.get(), map.data(), map.size()));
        return map;
    }
    PadimPrediction get() const { return handle_.get(); }

  private:
    Owned<PadimPrediction, padim_prediction_free> handle_;
    PadimResult result_{};
};

class Detector {
  public:
    explicit Detector(PadimDetector handle) : handle_(handle) {}
    static Detector load(const std::string &path) {
        PadimDetector handle;
        check(padim_detector_load(path.c_str(), &handle));
        return Detector(handle);
    }
    static Detector load(const std::uint8_t *bytes, std::size_t length) {
        PadimDetector handle;
        check(padim_detector_load_memory(bytes, length, &handle));
        return Detector(handle);
    }
    void save(const std::string &path) const { check(padim_detector_save(handle_.get(), path.c_str())); }
    PadimDetectorInfo info() const {
        PadimDetectorInfo info{};
        info.struct_size = sizeof info;
        check(padim_detector_info(handle_.get(), &info));
        return info;
    }
    Prediction predict(const std::string &path) const {
        PadimPrediction prediction;
        check(padim_predict_file(handle_.get(), path.c_str(), &prediction));
        return Prediction(prediction);
    }
    Prediction predict(const PadimFrame &frame) const {
        PadimPrediction prediction;
        check(padim_predict_frame(handle_.get(), &frame, &prediction));
        return Prediction(prediction);
    }
    Prediction predict_encoded(const std::uint8_t *bytes, std::size_t length, const char *name = nullptr) const {
        PadimPrediction prediction;
        check(padim_predict_encoded(handle_.get(), bytes, length, name, &prediction));
        return Prediction(prediction);
    }
    std::vector<Prediction> predict(const std::vector<PadimFrame> &frames) const {
        std::vector<PadimPrediction> handles(frames.size());
        check(padim_predict_frames(handle_.get(), frames.data(), frames.size(), handles.data()));
        return std::vector<Prediction>(handles.begin(), handles.end());
    }
    std::vector<PadimRegion> regions(const Prediction &prediction) const {
        std::size_t count = 0;
        check(padim_prediction_regions(handle_.get(), prediction.get(), nullptr, 0, &count));
        std::vector<PadimRegion> regions(count);
        check(padim_prediction_regions(handle_.get(), prediction.get(), regions.data(), count, &count));
        return regions;
    }
    PadimDetector get() const { return handle_.get(); }

  private:
    Owned<PadimDetector, padim_detector_free> handle_;
};

class Fit {
  public:
    explicit Fit(const char *config_json = nullptr, const char *backbone = nullptr, const char *weights = nullptr)
        : handle_(start(config_json, backbone, weights)) {}
    void add(const std::string &path) { check(padim_fit_add_file(handle_.get(), path.c_str())); }
    void add(const PadimFrame &frame) { check(padim_fit_add_frame(handle_.get(), &frame)); }
    void add_encoded(const std::uint8_t *bytes, std::size_t length, const char *name = nullptr) {
        check(padim_fit_add_encoded(handle_.get(), bytes, length, name));
    }
    // Ends the fit.
    Detector finish() {
        PadimDetector detector;
        check(padim_fit_finish(handle_.take(), &detector));
        return Detector(detector);
    }

  private:
    static PadimFit start(const char *config_json, const char *backbone, const char *weights) {
        PadimFitOptions options{sizeof(PadimFitOptions), backbone, weights, config_json};
        PadimFit fit;
        check(padim_fit_new(&options, &fit));
        return fit;
    }
    Owned<PadimFit, padim_fit_free> handle_;
};

class Calibration {
  public:
    // 0: the default rate.
    explicit Calibration(const Detector &detector, double image_rate = 0, double pixel_rate = 0)
        : handle_(start(detector, image_rate, pixel_rate)) {}
    void add(const std::string &path) { check(padim_calibration_add_file(handle_.get(), path.c_str())); }
    void add(const PadimFrame &frame) { check(padim_calibration_add_frame(handle_.get(), &frame)); }
    // Ends the calibration: its detector has the thresholds from now on.
    void finish() { check(padim_calibration_finish(handle_.take())); }

  private:
    static PadimCalibration start(const Detector &detector, double image_rate, double pixel_rate) {
        PadimCalibration calibration;
        check(padim_calibration_new(detector.get(), image_rate, pixel_rate, &calibration));
        return calibration;
    }
    Owned<PadimCalibration, padim_calibration_free> handle_;
};

}  // namespace padim

#endif
