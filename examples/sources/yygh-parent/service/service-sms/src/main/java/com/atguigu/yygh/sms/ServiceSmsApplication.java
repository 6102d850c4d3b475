package com.atguigu.yygh.sms;

import com.atguigu.yygh.service.YyghService;
import org.springframework.boot.autoconfigure.SpringBootApplication;

/** Short messages. */
@SpringBootApplication
public class ServiceSmsApplication {

    public static void main(String[] args) {
        YyghService.run(ServiceSmsApplication.class, args);
    }
}
