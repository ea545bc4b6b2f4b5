/* Fits a detector on frames of a camera, calibrates it and saves it. The camera is a formula:
 *
 *     fit part.padim
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "padim.h"

enum { HEIGHT = 96, WIDTH = 128, FITTED = 12, CALIBRATED = 19 };

static void check(PadimStatus status) {
    if (status != PADIM_OK) {
        fprintf(stderr, "padim: %s\n", padim_last_error());
        exit(1);
    }
}

/* A gray disk that moves a little, and noise. */
static PadimFrame take(uint8_t *pixels, unsigned number) {
    unsigned noise = number * 7919u + 1u;
    for (int y = 0; y < HEIGHT; y++) {
        for (int x = 0; x < WIDTH; x++) {
            int down = y - HEIGHT / 2, across = x - WIDTH / 2 - (int)(number % 3);
            noise = noise * 1664525u + 1013904223u;
            int shade = down * down + across * across < 900 ? 170 : 60;
            pixels[y * WIDTH + x] = (uint8_t)(shade + (int)(noise >> 28));
        }
    }
    PadimFrame frame = {.struct_size = sizeof frame, .data = pixels, .length = HEIGHT * WIDTH,
                        .format = "Mono8", .height = HEIGHT, .width = WIDTH};
    return frame;
}

int main(int count, char **arguments) {
    static uint8_t pixels[HEIGHT * WIDTH];
    if (count != 2) {
        fprintf(stderr, "usage: fit DETECTOR\n");
        return 2;
    }
    PadimFitOptions options = {
        .struct_size = sizeof options,
        .config_json = "{\"preprocess\": {\"resize\": {\"exact\": {\"height\": 64, \"width\": 64}}}}",
    };
    PadimFit fit;
    check(padim_fit_new(&options, &fit));
    unsigned number = 0;
    for (; number < FITTED; number++) {
        PadimFrame frame = take(pixels, number);
        check(padim_fit_add_frame(fit, &frame));
    }
    PadimDetector detector;
    check(padim_fit_finish(fit, &detector));

    /* Other good images set the threshold: at most 5 % of new good images are called defective. */
    PadimCalibration calibration;
    check(padim_calibration_new(detector, 0.05, 0.001, &calibration));
    for (; number < FITTED + CALIBRATED; number++) {
        PadimFrame frame = take(pixels, number);
        check(padim_calibration_add_frame(calibration, &frame));
    }
    check(padim_calibration_finish(calibration));
    check(padim_detector_save(detector, arguments[1]));

    PadimFrame frame = take(pixels, number);
    for (int i = 0; i < 12; i++) {
        for (int j = 0; j < 12; j++) pixels[(42 + i) * WIDTH + 60 + j] = 255;
    }
    PadimPrediction prediction;
    PadimResult result = {.struct_size = sizeof result};
    check(padim_predict_frame(detector, &frame, &prediction));
    check(padim_prediction_result(prediction, &result));
    printf("with a spot: score %.3f, %s\n", result.image_score,
           result.verdict == PADIM_DEFECTIVE ? "defective" : "good");
    check(padim_prediction_free(prediction));
    check(padim_detector_free(detector));
    return 0;
}
