// Scores image files with a saved detector, as examples/inspect.c:
//
//     mcs Inspect.cs Padim.cs && mono Inspect.exe part.padim image.png ...
using System;
using System.Globalization;
using Padim;

static class Inspect
{
    static int Main(string[] arguments)
    {
        if (arguments.Length < 2)
        {
            Console.Error.WriteLine("usage: Inspect DETECTOR IMAGE ...");
            return 2;
        }
        try
        {
            using (Detector detector = Detector.Load(arguments[0]))
            {
                for (int i = 1; i < arguments.Length; i++)
                {
                    using (Prediction prediction = detector.Predict(arguments[i]))
                    {
                        string score = prediction.ImageScore.ToString("R", CultureInfo.InvariantCulture);
                        string verdict = prediction.Verdict.ToString().ToLowerInvariant();
                        Console.WriteLine(arguments[i] + " " + score + " " + verdict);
                        if (prediction.Verdict != Verdict.Defective) continue;
                        foreach (Region region in detector.Regions(prediction))
                            Console.WriteLine("  region: row " + region.Top + ", column " + region.Left + ", "
                                + region.Height + " x " + region.Width + " pixels");
                    }
                }
            }
        }
        catch (PadimException error)
        {
            Console.Error.WriteLine("padim: " + error.Message);
            return 1;
        }
        return 0;
    }
}
