// Scores image files with a saved detector, as inspect.c:
//
//     inspect part.padim image.png ...
#include <cstdio>

#include "padim.hpp"

int main(int count, char **arguments) try {
    if (count < 3) {
        std::fprintf(stderr, "usage: inspect DETECTOR IMAGE ...\n");
        return 2;
    }
    const auto detector = padim::Detector::load(arguments[1]);
    for (int i = 2; i < count; i++) {
        const auto prediction = detector.predict(std::string(arguments[i]));
        const PadimResult &result = prediction.result();
        const char *verdicts[] = {"unknown", "good", "defective"};
        std::printf("%s %.9g %.9g %s\n", arguments[i], static_cast<double>(result.image_score), result.p_value,
                    verdicts[result.verdict]);
        if (prediction.is_defective()) {
            for (const PadimRegion &region : detector.regions(prediction)) {
                std::printf("  region: row %zu, column %zu, %zu x %zu pixels\n", region.top, region.left,
                            region.height, region.width);
            }
        }
    }
} catch (const padim::Error &error) {
    std::fprintf(stderr, "padim: %s\n", error.what());
    return 1;
}
