// padim for C#: one file over the C interface (see include/padim.h). Needs the library padim_c beside the program
// or on the search path of the loader.
using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;

namespace Padim
{
    /// <summary>A call has failed.</summary>
    public sealed class PadimException : Exception
    {
        public int Status { get; }
        internal PadimException(int status) : base(Native.Message()) { Status = status; }
    }

    public enum Verdict { Unknown = 0, Good = 1, Defective = 2 }

    /// <summary>A connected region of a defect, in pixels of the original image.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct Region
    {
        internal UIntPtr top, left, height, width, area;
        public float Peak, Mean;
        public long Top => (long)top;
        public long Left => (long)left;
        public long Height => (long)height;
        public long Width => (long)width;
        public long Area => (long)area;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct Frame
    {
        public UIntPtr size;
        public IntPtr data;
        public UIntPtr length;
        public IntPtr format;
        public UIntPtr height, width, stride;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct Result
    {
        public UIntPtr size;
        public float imageScore, normalizedScore;
        public double pValue;
        public Verdict verdict;
        public UIntPtr mapHeight, mapWidth, originalHeight, originalWidth;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct Info
    {
        public UIntPtr size, inputHeight, inputWidth;
        [MarshalAs(UnmanagedType.I1)] public bool hasThreshold;
        [MarshalAs(UnmanagedType.I1)] public bool isCalibrated;
        [MarshalAs(UnmanagedType.I1)] public bool isTiled;
        public float threshold, pixelThreshold;
        public UIntPtr calibrationImages;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct Handle { public ulong id; }

    internal static class Native
    {
        const string Library = "padim_c";

        [DllImport(Library)] static extern IntPtr padim_last_error();
        [DllImport(Library)] internal static extern uint padim_abi_version();
        [DllImport(Library)] internal static extern int padim_detector_load(byte[] path, out Handle detector);
        [DllImport(Library)] internal static extern int padim_detector_load_memory(byte[] bytes, UIntPtr length, out Handle detector);
        [DllImport(Library)] internal static extern int padim_detector_save(Handle detector, byte[] path);
        [DllImport(Library)] internal static extern int padim_detector_free(Handle detector);
        [DllImport(Library)] internal static extern int padim_detector_info(Handle detector, ref Info info);
        [DllImport(Library)] internal static extern int padim_predict_file(Handle detector, byte[] path, out Handle prediction);
        [DllImport(Library)] internal static extern int padim_predict_encoded(Handle detector, byte[] bytes, UIntPtr length, byte[] name, out Handle prediction);
        [DllImport(Library)] internal static extern int padim_predict_frame(Handle detector, ref Frame frame, out Handle prediction);
        [DllImport(Library)] internal static extern int padim_prediction_result(Handle prediction, ref Result result);
        [DllImport(Library)] internal static extern int padim_prediction_copy_map(Handle prediction, float[] buffer, UIntPtr length);
        [DllImport(Library)] internal static extern int padim_prediction_copy_original_map(Handle prediction, float[] buffer, UIntPtr length);
        [DllImport(Library)] internal static extern int padim_prediction_regions(Handle detector, Handle prediction, [Out] Region[] regions, UIntPtr capacity, out UIntPtr count);
        [DllImport(Library)] internal static extern int padim_prediction_free(Handle prediction);

        internal static void Check(int status)
        {
            if (status != 0) throw new PadimException(status);
        }

        internal static string Message()
        {
            IntPtr text = padim_last_error();
            int length = 0;
            while (Marshal.ReadByte(text, length) != 0) length++;
            var bytes = new byte[length];
            Marshal.Copy(text, bytes, 0, length);
            return Encoding.UTF8.GetString(bytes);
        }

        /// A text that ends with 0.
        internal static byte[] Text(string text) => Encoding.UTF8.GetBytes(text + "\0");

        internal static UIntPtr Size<T>() => (UIntPtr)Marshal.SizeOf(typeof(T));
    }

    /// <summary>The result of a detector for an image. May be used from several threads.</summary>
    public sealed class Prediction : IDisposable
    {
        internal Handle handle;
        readonly Result result;

        internal Prediction(Handle handle)
        {
            this.handle = handle;
            result.size = Native.Size<Result>();
            Native.Check(Native.padim_prediction_result(handle, ref result));
        }

        /// <summary>Higher means more anomalous.</summary>
        public float ImageScore => result.imageScore;
        public float NormalizedScore => result.normalizedScore;
        /// <summary>NaN unless the detector is calibrated.</summary>
        public double PValue => result.pValue;
        public Verdict Verdict => result.verdict;
        public int MapHeight => (int)result.mapHeight;
        public int MapWidth => (int)result.mapWidth;
        public int OriginalHeight => (int)result.originalHeight;
        public int OriginalWidth => (int)result.originalWidth;

        /// <summary>MapHeight rows of MapWidth scores.</summary>
        public float[] Map()
        {
            var map = new float[MapHeight * MapWidth];
            Native.Check(Native.padim_prediction_copy_map(handle, map, (UIntPtr)map.Length));
            return map;
        }

        /// <summary>OriginalHeight rows of OriginalWidth scores.</summary>
        public float[] OriginalMap()
        {
            var map = new float[OriginalHeight * OriginalWidth];
            Native.Check(Native.padim_prediction_copy_original_map(handle, map, (UIntPtr)map.Length));
            return map;
        }

        public void Dispose()
        {
            if (handle.id != 0) Native.padim_prediction_free(handle);
            handle.id = 0;
            GC.SuppressFinalize(this);
        }

        ~Prediction() { Dispose(); }
    }

    /// <summary>A detector. May be used from several threads.</summary>
    public sealed class Detector : IDisposable
    {
        const uint AbiVersion = 1;
        Handle handle;

        Detector(Handle handle) { this.handle = handle; }

        public static Detector Load(string path)
        {
            Require();
            Handle handle;
            Native.Check(Native.padim_detector_load(Native.Text(path), out handle));
            return new Detector(handle);
        }

        public static Detector Load(byte[] bytes)
        {
            Require();
            Handle handle;
            Native.Check(Native.padim_detector_load_memory(bytes, (UIntPtr)bytes.Length, out handle));
            return new Detector(handle);
        }

        static void Require()
        {
            if (Native.padim_abi_version() != AbiVersion) throw new InvalidOperationException(
                "padim_c has version " + Native.padim_abi_version() + " of its interface, expected " + AbiVersion);
        }

        public void Save(string path) => Native.Check(Native.padim_detector_save(handle, Native.Text(path)));

        Info Info()
        {
            var info = new Info { size = Native.Size<Info>() };
            Native.Check(Native.padim_detector_info(handle, ref info));
            return info;
        }

        /// <summary>From this score on, an image is defective; NaN without a threshold.</summary>
        public float Threshold => Info().threshold;
        public bool IsCalibrated => Info().isCalibrated;
        public int InputHeight => (int)Info().inputHeight;
        public int InputWidth => (int)Info().inputWidth;

        public Prediction Predict(string path)
        {
            Handle prediction;
            Native.Check(Native.padim_predict_file(handle, Native.Text(path), out prediction));
            return new Prediction(prediction);
        }

        /// <summary>The bytes of a PNG, JPEG, BMP, TIFF or WebP file.</summary>
        public Prediction PredictEncoded(byte[] bytes, string name = "the given file")
        {
            Handle prediction;
            Native.Check(Native.padim_predict_encoded(handle, bytes, (UIntPtr)bytes.Length, Native.Text(name), out prediction));
            return new Prediction(prediction);
        }

        /// <summary>A camera's frame. format: as in GenICam, such as "Mono8". stride: 0 for rows without a gap.</summary>
        public Prediction PredictFrame(byte[] data, string format, int height, int width, int stride = 0)
        {
            GCHandle pixels = GCHandle.Alloc(data, GCHandleType.Pinned);
            GCHandle name = GCHandle.Alloc(Native.Text(format), GCHandleType.Pinned);
            try
            {
                var frame = new Frame
                {
                    size = Native.Size<Frame>(),
                    data = pixels.AddrOfPinnedObject(),
                    length = (UIntPtr)data.Length,
                    format = name.AddrOfPinnedObject(),
                    height = (UIntPtr)height,
                    width = (UIntPtr)width,
                    stride = (UIntPtr)stride,
                };
                Handle prediction;
                Native.Check(Native.padim_predict_frame(handle, ref frame, out prediction));
                return new Prediction(prediction);
            }
            finally
            {
                pixels.Free();
                name.Free();
            }
        }

        /// <summary>The regions that reach the pixel threshold, highest peak first.</summary>
        public IReadOnlyList<Region> Regions(Prediction prediction)
        {
            UIntPtr count;
            Native.Check(Native.padim_prediction_regions(handle, prediction.handle, null, UIntPtr.Zero, out count));
            var regions = new Region[(int)count];
            Native.Check(Native.padim_prediction_regions(handle, prediction.handle, regions, count, out count));
            return regions;
        }

        public void Dispose()
        {
            if (handle.id != 0) Native.padim_detector_free(handle);
            handle.id = 0;
            GC.SuppressFinalize(this);
        }

        ~Detector() { Dispose(); }
    }
}
