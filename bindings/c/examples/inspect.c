/* Scores image files with a saved detector:
 *
 *     inspect part.padim image.png ...
 */
#include <stdio.h>
#include <stdlib.h>

#include "padim.h"

static void check(PadimStatus status) {
    if (status != PADIM_OK) {
        fprintf(stderr, "padim: %s\n", padim_last_error());
        exit(1);
    }
}

int main(int count, char **arguments) {
    if (count < 3 || padim_abi_version() != PADIM_ABI_VERSION) {
        fprintf(stderr, "usage: inspect DETECTOR IMAGE ...\n");
        return 2;
    }
    PadimDetector detector;
    check(padim_detector_load(arguments[1], &detector));
    for (int i = 2; i < count; i++) {
        PadimPrediction prediction;
        PadimResult result = {.struct_size = sizeof result};
        check(padim_predict_file(detector, arguments[i], &prediction));
        check(padim_prediction_result(prediction, &result));
        const char *verdicts[] = {"unknown", "good", "defective"};
        printf("%s %.9g %.9g %s\n", arguments[i], result.image_score, result.p_value, verdicts[result.verdict]);
        if (result.verdict == PADIM_DEFECTIVE) {
            PadimRegion regions[8];
            size_t found;
            check(padim_prediction_regions(detector, prediction, regions, 8, &found));
            for (size_t r = 0; r < found && r < 8; r++) {
                printf("  region: row %zu, column %zu, %zu x %zu pixels\n", regions[r].top, regions[r].left,
                       regions[r].height, regions[r].width);
            }
        }
        check(padim_prediction_free(prediction));
    }
    check(padim_detector_free(detector));
    return 0;
}
