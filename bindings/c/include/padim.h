/* padim: finds and localizes defects in images after seeing only good ones.
 *
 * The C interface. How to use it: bindings/c/README.md. Made from the Rust sources by cbindgen; a test checks
 * that it is current.
 *
 * Conventions
 * - Every function that can fail returns a PadimStatus. After another status than PADIM_OK, padim_last_error
 *   gives the message. It belongs to the calling thread. Results are written only if the status is PADIM_OK.
 * - Handles are small numbers in structs, not pointers. A handle that was freed, or never existed, is an error
 *   and never a crash. All functions may be called from any thread at the same time, also with the same handle.
 *   A detector that is freed during a prediction lives until the prediction ends.
 * - Structs that may grow begin with `struct_size`: set it to sizeof of the struct before the call.
 * - Pointers must be null or point to as many values as the call says. Null is an error that says so, unless the
 *   function allows it.
 * - Texts are UTF-8 and end with 0. Memory that was given to a function may be changed or freed after its return.
 */

#ifndef PADIM_H
#define PADIM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// The version of this interface. It grows when a function or a struct changes in a way that old programs cannot
// use.
#define PADIM_ABI_VERSION 1

// The result of a call.
typedef enum PadimStatus {
  // The call has succeeded.
  PADIM_OK = 0,
  // An argument is wrong: a null pointer, an unknown handle, a size.
  PADIM_ERROR_ARGUMENT = 1,
  // A setting is wrong, or the images do not suffice for it.
  PADIM_ERROR_CONFIG = 2,
  // The operating system refused to read or write a file.
  PADIM_ERROR_IO = 3,
  // An image cannot be used: it is damaged, too large, or of an unsupported kind.
  PADIM_ERROR_IMAGE = 4,
  // A file is not a usable detector.
  PADIM_ERROR_DETECTOR = 5,
  // Anything else.
  PADIM_ERROR_OTHER = 6,
  // A bug in padim. The detector and the other handles stay usable.
  PADIM_ERROR_PANIC = 7,
} PadimStatus;

// Whether an image is defective.
typedef enum PadimVerdict {
  // The detector has no threshold.
  PADIM_UNKNOWN = 0,
  // The score is below the threshold.
  PADIM_GOOD = 1,
  // The score reaches the threshold.
  PADIM_DEFECTIVE = 2,
} PadimVerdict;

// A detector. Free it by padim_detector_free.
typedef struct PadimDetector {
  // Not for use by programs. 0 is no detector.
  uint64_t id;
} PadimDetector;

// What a detector is.
typedef struct PadimDetectorInfo {
  // Set this to sizeof(PadimDetectorInfo).
  size_t struct_size;
  // The size of the network's input in pixels. For tiles, of the input of a tile.
  size_t input_height;
  size_t input_width;
  // Whether the detector has a threshold, so that predictions have a verdict.
  bool has_threshold;
  // Whether it was calibrated, so that predictions have a p-value.
  bool is_calibrated;
  // Whether it cuts large images into tiles.
  bool is_tiled;
  // From this image score on, an image is defective; NaN without a threshold.
  float threshold;
  // From this value on, a pixel belongs to a region; NaN without such a threshold.
  float pixel_threshold;
  // The number of good images of the calibration, or 0.
  size_t calibration_images;
} PadimDetectorInfo;

// A camera's frame: raw pixels in memory.
typedef struct PadimFrame {
  // Set this to sizeof(PadimFrame).
  size_t struct_size;
  // The pixels, row by row.
  const uint8_t *data;
  // The number of bytes at `data`.
  size_t length;
  // The format by its name in GenICam: "Mono8", "RGB8", "BGR8", "RGBa8", "BGRa8", "Mono12", "Mono12p",
  // "Mono16", "BayerRG8", ...
  const char *format;
  // In pixels.
  size_t height;
  // In pixels.
  size_t width;
  // The number of bytes from the beginning of a row to that of the next; 0 for rows without a gap.
  size_t stride;
} PadimFrame;

// The result of a detector for an image. Free it by padim_prediction_free.
typedef struct PadimPrediction {
  // Not for use by programs. 0 is no prediction.
  uint64_t id;
} PadimPrediction;

// The settings of a fit. Null pointers mean defaults.
typedef struct PadimFitOptions {
  // Set this to sizeof(PadimFitOptions).
  size_t struct_size;
  // "resnet18" (default) or "wide_resnet50".
  const char *backbone;
  // A file with the network's weights (.safetensors or .pth of torchvision). Default: those inside this library,
  // which only "resnet18" has.
  const char *weights;
  // The settings as JSON, with the field names of `PadimConfig`; fields that are left out have their defaults.
  // For example: {"batch_size": 8, "preprocess": {"resize": {"exact": {"height": 256, "width": 320}}}}
  const char *config_json;
} PadimFitOptions;

// A fit that waits for images. End it by padim_fit_finish or padim_fit_free.
typedef struct PadimFit {
  // Not for use by programs. 0 is no fit.
  uint64_t id;
} PadimFit;

// A calibration that waits for images. End it by padim_calibration_finish or padim_calibration_free.
typedef struct PadimCalibration {
  // Not for use by programs. 0 is no calibration.
  uint64_t id;
} PadimCalibration;

// The scores of an image.
typedef struct PadimResult {
  // Set this to sizeof(PadimResult).
  size_t struct_size;
  // Higher means more anomalous.
  float image_score;
  // The score after the detector's normalization; without one, equal to `image_score`.
  float normalized_score;
  // The probability that a good image has at least this score; NaN unless the detector is calibrated.
  double p_value;
  enum PadimVerdict verdict;
  // The size of the anomaly map.
  size_t map_height;
  size_t map_width;
  // The size of the original image.
  size_t original_height;
  size_t original_width;
} PadimResult;

// A connected region of pixels that reach the pixel threshold, in pixels of the original image.
typedef struct PadimRegion {
  // The first row.
  size_t top;
  // The first column.
  size_t left;
  size_t height;
  size_t width;
  // The number of its pixels.
  size_t area;
  // Its highest score.
  float peak;
  // Its mean score.
  float mean;
} PadimRegion;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Loads a detector from a file. It runs on the CPU. Free it by padim_detector_free.
enum PadimStatus padim_detector_load(const char *path, struct PadimDetector *detector);

// Loads a detector from the bytes of its file.
enum PadimStatus padim_detector_load_memory(const uint8_t *bytes,
                                            size_t length,
                                            struct PadimDetector *detector);

// Saves a detector. The file appears only when it is complete.
enum PadimStatus padim_detector_save(struct PadimDetector detector, const char *path);

// Gives up a detector. Predictions that run end normally.
enum PadimStatus padim_detector_free(struct PadimDetector detector);

// Tells what a detector is.
enum PadimStatus padim_detector_info(struct PadimDetector detector, struct PadimDetectorInfo *info);

// Scores a camera's frame. Free the prediction by padim_prediction_free.
enum PadimStatus padim_predict_frame(struct PadimDetector detector,
                                     const struct PadimFrame *frame,
                                     struct PadimPrediction *prediction);

// Scores an encoded image in memory: the bytes of a PNG, JPEG, BMP, TIFF or WebP file. `name` is its name in
// messages, or null.
enum PadimStatus padim_predict_encoded(struct PadimDetector detector,
                                       const uint8_t *bytes,
                                       size_t length,
                                       const char *name,
                                       struct PadimPrediction *prediction);

// Scores an image file.
enum PadimStatus padim_predict_file(struct PadimDetector detector,
                                    const char *path,
                                    struct PadimPrediction *prediction);

// Scores `count` frames at once, which is faster than one by one. Writes `count` predictions, or none if one of
// the frames cannot be scored. All frames must have the same struct_size as this library's, and `frames` and
// `predictions` must have `count` values.
enum PadimStatus padim_predict_frames(struct PadimDetector detector,
                                      const struct PadimFrame *frames,
                                      size_t count,
                                      struct PadimPrediction *predictions);

// Begins a fit on good images. `options` may be null.
enum PadimStatus padim_fit_new(const struct PadimFitOptions *options, struct PadimFit *fit);

// Adds a good image. The pixels are copied. The call may wait for images before. An error of an earlier image is
// told by a later call; then the fit has ended.
enum PadimStatus padim_fit_add_frame(struct PadimFit fit,
                                     const struct PadimFrame *frame);

// As padim_fit_add_frame, with the bytes of an image file.
enum PadimStatus padim_fit_add_encoded(struct PadimFit fit,
                                       const uint8_t *bytes,
                                       size_t length,
                                       const char *name);

// As padim_fit_add_frame, with an image file.
enum PadimStatus padim_fit_add_file(struct PadimFit fit, const char *path);

// Ends a fit, and gives its detector. The fit is freed, also if the call fails.
enum PadimStatus padim_fit_finish(struct PadimFit fit, struct PadimDetector *detector);

// Gives up a fit.
enum PadimStatus padim_fit_free(struct PadimFit fit);

// Begins a calibration of a detector by good images that were not in its fit: at most this share of good images,
// and of their pixels, will be called defective. A share of 0.05 needs 19 images, one of 0.01 needs 99. For 0, the
// default is taken: 0.05 of the images, 0.001 of the pixels.
enum PadimStatus padim_calibration_new(struct PadimDetector detector,
                                       double image_false_alarm_rate,
                                       double pixel_false_alarm_rate,
                                       struct PadimCalibration *calibration);

// Adds a good image, as padim_fit_add_frame.
enum PadimStatus padim_calibration_add_frame(struct PadimCalibration calibration,
                                             const struct PadimFrame *frame);

// Adds a good image, as padim_fit_add_encoded.
enum PadimStatus padim_calibration_add_encoded(struct PadimCalibration calibration,
                                               const uint8_t *bytes,
                                               size_t length,
                                               const char *name);

// Adds a good image, as padim_fit_add_file.
enum PadimStatus padim_calibration_add_file(struct PadimCalibration calibration, const char *path);

// Ends a calibration: its detector has the thresholds from now on. The calibration is freed, also if the call
// fails; then the detector stays as it was.
enum PadimStatus padim_calibration_finish(struct PadimCalibration calibration);

// Gives up a calibration. Its detector stays as it was.
enum PadimStatus padim_calibration_free(struct PadimCalibration calibration);

// Gives up a prediction and its map.
enum PadimStatus padim_prediction_free(struct PadimPrediction prediction);

// The scores of a prediction, and the sizes of its maps.
enum PadimStatus padim_prediction_result(struct PadimPrediction prediction,
                                         struct PadimResult *result);

// The anomaly map, `map_height` rows of `map_width` scores. It is the library's memory, and valid until the
// prediction is freed.
enum PadimStatus padim_prediction_map(struct PadimPrediction prediction,
                                      const float **map);

// Copies the anomaly map to a buffer of `length` scores, which must be exactly its size.
enum PadimStatus padim_prediction_copy_map(struct PadimPrediction prediction,
                                           float *buffer,
                                           size_t length);

// As padim_prediction_copy_map, with the map in the size of the original image: `original_height` rows of
// `original_width` scores. Pixels that the network did not see are 0.
enum PadimStatus padim_prediction_copy_original_map(struct PadimPrediction prediction,
                                                    float *buffer,
                                                    size_t length);

// The regions of a prediction that reach the detector's pixel threshold, highest peak first. Writes at most
// `capacity` of them, and to `count` how many there are. `regions` may be null if `capacity` is 0.
enum PadimStatus padim_prediction_regions(struct PadimDetector detector,
                                          struct PadimPrediction prediction,
                                          struct PadimRegion *regions,
                                          size_t capacity,
                                          size_t *count);

// The message of the last call of this thread that failed; empty if none has. It is valid until the next call of
// this thread that fails.
const char *padim_last_error(void);

// The version of the interface of this library: equal to PADIM_ABI_VERSION of the header that fits.
uint32_t padim_abi_version(void);

// The version of padim, such as "0.1.0".
const char *padim_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PADIM_H */
