"""Parameters texts as programs write them, for make_infotext.py.

Keys, their order, quoting, versions and oddities are those of real pictures and of the programs' sources; prompts, names and numbers are our own.
"""
T = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b"

CORPUS = [
    # AUTOMATIC1111 through its versions
    "girl with an artist's beret, determined, blue eyes, desert scene, ((eyeshadow)), (coquettish), detailed, intricate\n"
    "Negative prompt: ugly, fat, (((deformed))), [blurry], bad anatomy, (extra_limb)\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b",
    "an astronaut on a horse\nSteps: 50, Sampler: PLMS, CFG scale: 7.5, Seed: 42, Size: 512x512",
    "castle, by a painter of old\nSteps: 30, Sampler: DDIM, CFG scale: 9, Seed: 1152, Size: 640x448, Model hash: 7460a6fa, Batch size: 4, Batch pos: 2, Eta DDIM: 0.5",
    "portrait\nNegative prompt: blurry\nSteps: 28, Sampler: Euler, CFG scale: 12, Seed: 2, Face restoration: CodeFormer, Size: 512x768, Model hash: 925997e9, "
    "Denoising strength: 0.7, Hypernet: anime, Hypernet strength: 0.6, Clip skip: 2, ENSD: 31337",
    "lake\nSteps: 20, Sampler: Euler a, CFG scale: 11, Seed: 31, Size: 1024x1024, Model hash: 81761151, Denoising strength: 0.7, First pass size: 0x0",
    "lake\nSteps: 20, Sampler: Euler a, CFG scale: 11, Seed: 31, Size: 1024x768, Model hash: 81761151, Denoising strength: 0.7, First pass size: 512x384",
    "tower, [wood:stone:0.4]\nNegative prompt: sky\nSteps: 24, Sampler: DPM++ SDE Karras, CFG scale: 8, Seed: 3, Size: 512x768, Model hash: cc6cb27103, Model: v1-5-pruned-emaonly, "
    "Variation seed: 77, Variation seed strength: 0.15, Seed resize from: 448x640",
    "tower, [wood:stone:10]\nSteps: 24, Sampler: DPM++ 2M Karras, CFG scale: 8, Seed: 3, Size: 512x768, Model hash: cc6cb27103, Model: v1-5-pruned-emaonly, Version: v1.2.1",
    "boat <lora:harbour_v2:0.8>\nNegative prompt: EasyNegative\nSteps: 25, Sampler: DPM++ 2M SDE Karras, CFG scale: 7, Seed: 4, Size: 768x512, Model hash: 6ce0161689, "
    "Model: v1-5-pruned-emaonly, Denoising strength: 0.55, Clip skip: 2, Hires upscale: 2, Hires steps: 12, Hires upscaler: Latent (nearest-exact), "
    'Lora hashes: "harbour_v2: 0123456789ab", TI hashes: "EasyNegative: c74b4e810b03", Version: v1.5.1',
    "boat\nSteps: 25, Sampler: DDIM, CFG scale: 7, Seed: 4, Size: 768x512, Model hash: 6ce0161689, Model: model, Version: v1.5.2-3-gabcdef1",
    "hall, BREAK, candles\nSteps: 30, Sampler: Restart, CFG scale: 6.5, Seed: 99, Size: 832x1216, Model hash: 31e35c80fc, Model: sd_xl_base_1.0, VAE hash: 63aeecb90f, "
    "VAE: sdxl_vae.safetensors, Refiner: sd_xl_refiner_1.0 [7440042bbd], Refiner switch at: 0.8, Version: v1.6.0",
    "hall\nSteps: 30, Sampler: UniPC, CFG scale: 6.5, Seed: 99, Size: 832x1216, Model hash: 31e35c80fc, Model: sd_xl_base_1.0, Version: v1.6.0-2-g4afaaf8a",
    "hall\nSteps: 30, Sampler: UniPC, CFG scale: 6.5, Seed: 99, Size: 832x1216, Model hash: 31e35c80fc, Model: x, RNG: CPU, NGMS: 0.2, Version: v1.6.0-RC-28-ga0e979ba",
    "hall\nSteps: 30, Sampler: LCM, CFG scale: 1.5, Seed: 99, Size: 512x512, Model hash: 31e35c80fc, Model: x, Pad conds: True, Version: v1.7.0",
    "hall\nSteps: 30, Sampler: DPM++ 3M SDE Exponential, CFG scale: 5, Seed: 99, Size: 512x512, Model: x, Discard penultimate sigma: True, Version: v1.7.0-225-gfa1b2c3",
    "hall\nSteps: 30, Sampler: Heun, CFG scale: 5, Seed: 99, Size: 512x512, Model: x, Refiner: y [0123456789], Refiner switch at: 0.5, Version: v1.7.0-RC",
    "hall\nSteps: 30, Sampler: Euler, CFG scale: 5, Seed: 99, Size: 512x512, Model: x, Sigma churn: 0.4, Sigma tmin: 0.1, Sigma tmax: 10.0, Sigma noise: 1.01, Version: 1.8.0-RC",
    "hall\nSteps: 30, Sampler: DPM2 a Karras, CFG scale: 5, Seed: 99, Size: 512x512, Model: x, Schedule max sigma: 12.0, Schedule min sigma: 0.05, Schedule rho: 5.0, Version: v1.8.0",
    "well, (moss:1.3)\nNegative prompt: dry\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 100, Size: 512x512, Model hash: aa, Model: x, "
    "Denoising strength: 0.4, RNG: NV, Hires resize: 1024x1536, Hires steps: 15, Hires upscaler: 4x-UltraSharp, Version: v1.9.4",
    "well\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 100, Size: 512x512, Model hash: aa, Model: x, Denoising strength: 0.4, "
    'Hires sampler: Euler a, Hires prompt: "well, water\\nclear \\"light\\"", Hires negative prompt: "mud, silt", Hires schedule type: Automatic, Hires upscale: 1.5, '
    "Hires upscaler: R-ESRGAN 4x+ Anime6B, Downcast alphas_cumprod: True, Version: v1.10.1",
    "field\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Align Your Steps, CFG scale: 7, Seed: 5, Size: 512x512, Model hash: aa, Model: x, Denoising strength: 0.75, "
    "Mask mode: Inpaint not masked, Mask blur: 8, Inpaint area: Only masked, Masked area padding: 64, Masked content: latent noise, Noise multiplier: 0.9, Version: v1.10.0",
    "field\nSteps: 20, Sampler: Euler a, Schedule type: SGM Uniform, CFG scale: 7, Seed: 5, Size: 512x512, Model hash: aa, Model: x, Conditional mask weight: 0.5, "
    "Tiling: True, Emphasis: No norm, Skip Early CFG: 0.1, NGMS: 1, NGMS all steps: True, UniPC order: 4, Version: v1.10.1-amd-5-gdeadbee",
    "field\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x512, Model hash: aa, Model: x, Token merging ratio: 0.3, Token merging ratio hr: 0.5, "
    "Hypertile U-Net: True, Hypertile U-Net max depth: 2, FP8 weight: Enable for SDXL, Cache FP16 weight for LoRA: True, User: someone, Version: v1.10.1",
    "field\nSteps: 8, Sampler: DPM++ 2M, Schedule type: Beta, CFG scale: 2, Seed: 5, Size: 1024x1024, Model hash: aa, Model: x, Init image hash: d41d8cd98f00b204e9800998ecf8427e, "
    "Beta schedule alpha: 0.5, Beta schedule beta: 0.7, Noise Schedule: Zero Terminal SNR, SGM noise multiplier: True, Version: v1.10.1-89-gabc",
    # Forge and its kin
    "mill\nNegative prompt: rust\nSteps: 30, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Seed: 539894433, Size: 832x1216, Model hash: 137ebf59ea, Model: mix.fp16, "
    'Denoising strength: 0.3, Clip skip: 2, Hashes: {"model": "137ebf59ea"}, Hires Module 1: Built-in, Hires CFG Scale: 1, Hires upscale: 2, Hires steps: 15, '
    "Hires upscaler: 4x_A, Version: f2.0.1v1.10.1-previous-659-gc055f2d4, Module 1: sdxl_vae",
    "mill\nSteps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 8, Size: 896x1152, Model hash: bea01d51bd, Model: flux1, "
    "Version: f2.0.1v1.10.1-1.10.1, Diffusion in Low Bits: Automatic (fp16 LoRA), Module 1: ae, Module 2: clip_l, Module 3: t5xxl_fp8_e4m3fn",
    "mill\nSteps: 20, Sampler: DPM++ 2M SDE, Schedule type: Karras, CFG scale: 5, Seed: 8, Size: 896x1152, Model hash: bea, Model: m, "
    'freeu_enabled: True, freeu_b1: 1.01, freeu_b2: 1.02, freeu_s1: 0.99, freeu_s2: 0.95, sag_enabled: True, Never OOM: "unet, vae", Version: f0.0.17v1.8.0rc-latest-276-g29be1da7',
    # SD.Next
    "stone bridge\nNegative prompt: modern\nSteps: 30, Seed: 4150520494, Sampler: Euler a, CFG scale: 7, Size: 1024x1024, Parser: Full parser, Model: anim-3.0, Model hash: 1449e5b0b9, "
    "Backend: Diffusers, App: SD.Next, Version: baf42fb, Operations: upscale; txt2img, Second pass: True, Hires force: False, Hires steps: 20, Hires upscaler: ESRGAN 4x, "
    "Hires upscale: 2, Hires resize: 0x0, Hires size: 2048x2048, Denoising strength: 0.35, Hires sampler: Euler a, Image CFG scale: 6, CFG rescale: 0.7, "
    'Lora hashes: "Alter_V1: 9f08b9d7", Sampler options: , Pipeline: StableDiffusionXLInpaintPipeline',
    "stone bridge\nSteps: 20, Size: 1024x768, Sampler: Default, Seed: 1, CFG scale: 6, CFG true: 4.0, Model: base, App: SD.Next, Version: 1234567, Parser: native, CHW: 4x96x128",
    # extensions
    "dancer\nNegative prompt: crowd\nSteps: 26, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 6, Size: 512x768, Model hash: aa, Model: x, ADetailer model: face_yolov8n.pt, "
    'ADetailer prompt: "face of a dancer, smile", ADetailer confidence: 0.3, ADetailer dilate/erode: 4, ADetailer mask blur: 4, ADetailer denoising strength: 0.4, '
    "ADetailer inpaint only masked: True, ADetailer inpaint padding: 32, ADetailer model 2nd: hand_yolov8n.pt, ADetailer confidence 2nd: 0.3, ADetailer version: 23.11.1, Version: v1.6.1",
    "dancer\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 5, Seed: 6, Size: 1000x1000, Model hash: aa, Model: x, VAE hash: df3c506e51, VAE: kl-f8-anime2.ckpt, "
    'ControlNet 0: "Module: scribble_pidinet, Model: control_v11p_sd15_scribble [d4ba51ff], Weight: 1, Resize Mode: Crop and Resize, Low Vram: False, Processor Res: 512, '
    'Guidance Start: 0, Guidance End: 1, Pixel Perfect: False, Control Mode: Balanced, Hr Option: Both, Save Detected Map: True", Version: 1.8.0-RC',
    "dancer\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 6, Size: 512x512, Model hash: aa, ControlNet Enabled: True, ControlNet Module: canny, "
    "ControlNet Model: control_canny-fp16 [e3fe7712], ControlNet Weight: 1, ControlNet Guidance Start: 0, ControlNet Guidance End: 1",
    "dancer ADDCOMM red ADDCOL blue\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 6, Size: 512x512, Model: x, RP Active: True, RP Divide mode: Matrix, RP Matrix submode: Horizontal, "
    'RP Calc Mode: Attention, RP Ratios: "1,1", RP Base Ratios: 0.2, RP Use Base: False, RP threshold: 0.4, RP Flip: False, Version: v1.6.0',
    "dancer\nSteps: 20, Sampler: Euler a, CFG scale: 18, Seed: 6, Size: 512x512, Model: x, Dynamic thresholding enabled: True, Mimic scale: 7, Separate Feature Channels: True, "
    "Scaling Startpoint: MEAN, Variability Measure: AD, Interpolate Phi: 1, Threshold percentile: 100, CFG mode: Half Cosine Up, Version: v1.5.2",
    "dancer\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 6, Size: 512x512, Model: x, "
    'FreeU Stages: "[{\\"backbone_factor\\": 1.2, \\"skip_factor\\": 0.9}]", FreeU Schedule: "0.0, 1.0, 0.0", FreeU Version: 2, Version: v1.6.0',
    "dancer\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 6, Size: 512x512, Model: x, Tiled Diffusion: \"{'Method': 'MultiDiffusion', 'Tile tile width': 96}\", "
    "Tiled Diffusion upscaler: None, Cutoff enabled: True, Cutoff targets: [\"red\", \"blue\"], Cutoff padding: _</w>, Cutoff weight: 0.5",
    "dancer\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 6, Size: 2048x2048, Model: x, Denoising strength: 0.2, Ultimate SD upscale upscaler: 4x-A, "
    "Ultimate SD upscale tile_width: 512, Ultimate SD upscale tile_height: 512, Ultimate SD upscale mask_blur: 8, Ultimate SD upscale padding: 32, Mask blur: 8, Version: v1.6.0",
    "dancer\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 6, Size: 512x512, Model: x, Denoising strength: 0.2, ENSD: 31337, Mask blur: 1, SD upscale overlap: 64, "
    "SD upscale upscaler: 4x_V, AddNet Enabled: True, AddNet Module 1: LoRA, AddNet Model 1: river-000002(6d3eb064dcc1), AddNet Weight A 1: 0.9, AddNet Weight B 1: 0.9",
    "painting of hills\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 3870472781, Size: 512x512, Model hash: cc6cb27103, Model: v1-5, Clip skip: 2, "
    'AddNet Enabled: True, AddNet Module 1: LoRA, AddNet Model 1: hills_4_last(db68853d039b), AddNet Weight A 1: -1.0, AddNet Weight B 1: -1.0, Script: X/Y/Z plot, '
    'X Type: AddNet Weight 1, X Values: "-1, 0, 1", Version: v1.3.0',
    "hills\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: aa, Model: x, Script: X/Y/Z plot, X Type: Steps, X Values: \"10-30 (+10)\", "
    'Y Type: Sampler, Y Values: "Euler a, DDIM", Fixed Y Values: "Euler a, DDIM", Z Type: Checkpoint name, Z Values: "a.safetensors [0123456789],b.ckpt", Version: v1.7.0',
    "hills\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model: x, Postprocess upscale by: 4, Postprocess upscaler: R-ESRGAN 4x+, "
    "Postprocess upscaler 2: None, Style Selector Enabled: True, Style Selector Randomize: False, Style Selector Style: base, Version: v1.6.0",
    'hills\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model: x, BMAB_face_option: "disable_extra_networks=False", Hardware Info: "RTX 4090 24GB, 64GB RAM", '
    "Time taken: 18.0 sec., Version: v1.10.0",
    'hills\nSteps: 16, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model: x, AnimateDiff: "enable: True, model: mm_v2.ckpt, video_length: 16, fps: 8", Version: v1.8.0',
    # sites and other programs
    "kettle\nNegative prompt: steam\nSteps: 31, Sampler: Euler a, CFG scale: 3, Seed: 2433638737, Size: 832x1216, Clip skip: 2, Created Date: 2024-09-25T15:30:00.0000000Z, "
    'Civitai resources: [{"type":"checkpoint","modelVersionId":128713,"modelName":"Dream","modelVersionName":"8"},{"type":"lora","weight":0.6,"modelVersionId":62833,'
    '"modelName":"Tweak, more","modelVersionName":"v1.0"}], Civitai metadata: {"remixOfId":123,"list":[1,{"a":"}"}]}',
    "kettle <lora:tweak:0.6>\nNegative prompt: steam\nSteps: 28, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 1234567, Size: 512x768, Clip skip: 2, Model hash: 6ce0161689, "
    'Model: v1-5, Lora hashes: "tweak: e3f9c2b1a8d7", Hashes: {"model": "6ce0161689", "vae": "735e4c3a44", "lora:tweak": "e3f9c2b1a8", "embed:Bad": "23f5e3fc03"}, Version: v1.9.4',
    "kettle, copper\nSteps: 20, Sampler: euler_ancestral_karras, CFG scale: 8.0, Seed: 77, Size: 512x512, Model hash: abcdef0123, Model: dream, "
    'Hashes: {"model":"abcdef0123"}, Version: ComfyUI',
    "kettle\nNegative prompt: embedding:bad\nSteps: 6, Sampler: DPM++ SDE, Schedule type: Karras, CFG scale: 2.0, Seed: 77, Size: 1024x1024, Model: turbo, Model hash: 4496b36d48, "
    "Batch index: 0, Batch size: 1, Lora_0 Model name: a.safetensors, Lora_0 Model hash: a1e0040929, Lora_0 Strength model: 1.0, Metadata generator version: 1.3.0",
    "kettle\nNegative prompt: \nSteps: 30, Sampler: DPM++ 2M SDE, Seed: 8236, Size: 1152x896, CFG scale: 4, Sharpness: 2, ADM Guidance: \"(1.5, 0.8, 0.3)\", "
    "Model: juggernaut, Model hash: aeb7e9e689, Performance: Speed, Version: Fooocus v2.5.0, Styles: \"['Fooocus V2', 'Sharp']\"",
    "kettle on a stove\nNegative prompt: lid\nSteps: 28, Sampler: Euler a, CFG scale: 11, Seed: 3141592653, Size: 512x768, Clip skip: 2, ENSD: 31337",
    "kettle\nSteps: 20, Sampler: k_dpmpp_2m, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: e1441589a6, Steps completed: 20",
    # templates behind the items, and before them
    "red cup\nNegative prompt: (worst quality, low quality:1.4)\n" + T + ", ENSD: 31337\nTemplate: {red|blue} cup\nNegative Template: (worst quality, low quality:1.4), __bad__",
    "red cup\n" + T + ", Wildcard prompt: \"__colour__ cup, {a|b}\", File includes: , Version: v1.6.0",
    # shapes of text
    "猫, 図書館, (本:1.2)\nNegative prompt: 犬, ぼやけた\n" + T + ", Model: 猫モデル, Lora hashes: \"猫: 0123456789ab\", 言語 版: 日本語",
    "кот в сапогах, ёлка 🎄\nNegative prompt: собака\n" + T + ", Model: модель_v2",
    "windows\r\nNegative prompt: linux\r\n" + T + "\r\n",
    "\n\n  indented prompt  \n\n   with a gap\n\tand a tab\n Negative prompt:  a \n\n b \n" + T + "\n\n",
    "first AND second :0.5 AND third: 1\nNegative prompt: a: b, c: d, e: f\n" + T,
    "quote \"this\", and: that\nNegative prompt: Negative prompt: twice\n" + T + ", Model: \"odd, name: x\", Note: \"it's \\\\ \\u00e9\"",
    T,
    "Negative prompt: only this\n" + T,
    "prompt without parameters, (soft:1.2)",
    "two lines\nof a prompt (a:1.1), (b:1.2)",
    "lone words\n" + T + ", Tiling, Restore faces, Version: v1.10.1",
    "unquoted list\n" + T + ", TI hashes: good: c74b4e810b03, bad: aaaa4e810b03, Version: v1.4.0",
    "spaces\nSteps:20,Sampler:  DPM++ 2M Karras ,CFG scale:7.0,Seed :5, Size: 512 x 512,Model: x ",
    "open\n" + T + ", Broken: \"never closed, Seed resize from: 1x1, After: \"\", Json: {\"a\": 1, Last: [1, 2",
    "twice\n" + T + ", Seed: 7, Model: a, Model: b, Empty: , Steps: ",
]
