package com.atguigu.yygh.hosp;

import com.atguigu.yygh.cmn.client.DictClient;
import com.atguigu.yygh.service.YyghService;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Import;

/** Hospitals, departments, schedules. */
@SpringBootApplication
@Import(DictClient.class)
public class ServiceHospApplication {

    public static void main(String[] args) {
        YyghService.run(ServiceHospApplication.class, args);
    }
}
